"""Test MultiR-Net on data of another kind: three labels, two modalities of MRI, no lungs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.methods.multirnet import MultiRNet, SegmentationClassLoss
from common.packaging import pack_bundle
from common.reporting import read_class_scores, read_scores
from common.transforms import AddBackgroundd, DecideLabeld

from ...patients import CLASSES, LABELS, TESTS, write_patients
from ...workflows import assert_class_maps, assert_label_maps, config_of, parser_of, results_in
from .tiny import MULTIRNET, NARROW

BOTH = ["image", "label"]
RECIPE = config_of(MULTIRNET, "plan")
PLAN: dict[str, Any] = {  # what `plan` adds to the recipe of the bundle
    "modalities": ["T1", "T2"], "labels": LABELS, "regions": {}, "label_map": {}, "segments": {},
    "task": "both", "classes": CLASSES,
    "check": [{"_target_": "common.transforms.CheckMRId", "keys": "image"}],
    "normalize": [
        {"_target_": "common.transforms.ResampleAxesd", "keys": BOTH, "pixdim": [1.4, 1.4, 1.5],
         "mode": ["bilinear", "nearest"], "allow_missing_keys": True},
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    ],
    "augment": [
        {"_target_": "CastToTyped", "keys": BOTH, "dtype": "float32"},
        {"_target_": "RandSpatialCropd", "keys": BOTH, "roi_size": "@roi_size", "random_size": False},
        {"_target_": "RandAffined", "keys": BOTH, "prob": 0.7, "rotate_range": 0.2, "mode": ["bilinear", "nearest"]},
    ],
    "optimizer": {"_target_": "torch.optim.AdamW", "_mode_": "callable", "lr": "@learning_rate"},
    "lr_scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_mode_": "callable",
                     "T_max": "@max_epochs"},
    "roi_size": [16, 16, 8], "batch_size": 2, "updates_per_epoch": 2, "max_epochs": 1, "val_interval": 1,
    "learning_rate": 0.002, "amp": False,
    **RECIPE["overlay"],
    **{f"network_def::{key}": value for key, value in NARROW.items()},
    "network_def::channels": [3, 4],  # two modalities do not divide the first width
}  # fmt: skip
SAMPLING = ("augment", "pad", "centres", "validation_crop")
# A user who only replaces the steps of the lungs keeps the patches on lesions.
BY_HAND = {"jitter": [3, 3, 2], **{key: value for key, value in PLAN.items() if key not in SAMPLING}}


@pytest.fixture
def patients(write_nifti: Callable[..., Path], tmp_path: Path) -> Path:
    """Write six patients; one has no foreground."""
    return write_patients(write_nifti, tmp_path / "mri", empty=[2])


@pytest.fixture
def run(workflow: Callable, patients: Path, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Run configs of the bundle with the plan, or another overlay, over them."""

    def run_configs(*names: str, plan: dict[str, Any] = PLAN, **options: Any) -> ConfigWorkflow:
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        options = {"dataset_dir": str(patients), **options}
        flow = workflow(MULTIRNET, *names, str(tmp_path / "plan"), tiny=False, **options)
        flow.run()
        return flow

    return run_configs


@pytest.mark.parametrize("plan", [PLAN, BY_HAND], ids=["planned", "patches on lesions"])
def test_one_overlay_serves_every_run(run: Callable, patients: Path, tmp_path: Path, plan: dict[str, Any]) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    flow = run("train", plan=plan)
    weights = torch.load(models / "model.pt", weights_only=True)
    assert weights["segmentation.bottom_head.0.weight"].shape[0] == 3
    validated = flow.parser.get_parsed_content("validate::dataset")[0]["image"].shape
    assert validated == (2, 16, 16, 8) if plan is BY_HAND else validated[1] > 16

    run("train", "evaluate", plan=plan)
    scores = read_scores(out / "scores.csv")
    assert [row["case"] + ".nii.gz" for row in scores] == TESTS
    assert {f"Dice {name}" for name in LABELS} <= scores[0].keys()
    assert list(read_class_scores(out / "class_scores.csv"))[-3:] == [f"AUC {name}" for name in CLASSES]

    run("train", "evaluate", "evaluate_roi", plan=plan, output_dir=str(tmp_path / "roi"))
    (row, _) = read_scores(tmp_path / "roi" / "scores.csv")
    volumes = [row[f"true volume (ml) {name}"] for name in LABELS]
    assert [volume > 0 for volume in volumes] == [True] * 3 and sum(volumes) <= math.prod(
        (16, 16, 8, 1.4, 1.4, 1.5)
    ) / 1000

    run("inference", plan=plan, output_dir=str(tmp_path / "masks"))
    assert_label_maps(tmp_path / "masks", patients / "labels", TESTS, {0, *LABELS.values()})
    result = json.loads((tmp_path / "masks" / "P5_class.json").read_text())
    assert list(result) == ["case", "class", "probabilities"] and list(result["probabilities"]) == CLASSES

    for explained in ("severe", None):  # None: the most probable class of each window
        maps = tmp_path / f"maps of {explained}"
        run("inference", "explain", plan=plan, output_dir=str(maps), explain=explained)
        assert_class_maps(maps, patients / "labels", TESTS)


def test_a_list_without_classes_trains_the_segmentation(run: Callable, patients: Path, tmp_path: Path) -> None:
    listing = json.loads((patients / "dataset.json").read_text())
    for case in [case for cases in listing.values() for case in cases]:
        del case["class"]
    (patients / "dataset.json").write_text(json.dumps(listing))
    run("train", task="seg")
    run("train", "evaluate", task="seg")
    assert results_in(tmp_path / "out") == {"scores.csv", "evaluate.log"}
    assert (tmp_path / "out" / "made_by.json").is_file()
    masks = tmp_path / "masks"
    run("inference", task="seg", probabilities=True, output_dir=str(masks))
    kinds = {name.partition("_")[2] for name in results_in(masks)} - {""}
    assert kinds == {"seg.nii.gz", "prob.nii.gz"}  # no class and no box of lungs
    for name in TESTS:
        mask, maps = (
            np.asarray(nib.load(masks / name.replace(".", f"_{kind}.", 1)).dataobj) for kind in ("seg", "prob")
        )
        assert maps.shape == (*mask.shape, 4)
        np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
        decided = np.array([0, *LABELS.values()])[maps.argmax(-1)]
        assert (decided == mask).mean() > 0.999  # rounding may decide between equals


@pytest.mark.usefixtures("warm_packing")
def test_the_package_describes_the_other_data(run: Callable, tmp_path: Path) -> None:
    run("train")
    pack_bundle(MULTIRNET, tmp_path / "models" / "model.pt", tmp_path / "dist", tmp_path / "plan.json")
    configs = tmp_path / "dist" / MULTIRNET.name / "configs"
    assert json.loads((configs / "inference.json").read_text())["labels"] == LABELS
    formats = json.loads((configs / "metadata.json").read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    assert (image["num_channels"], image["channel_def"]) == (2, {"0": "T1", "1": "T2"})
    assert pred["num_channels"] == len(LABELS) + len(CLASSES)
    written = formats["post_processed_outputs"]["pred"]["channel_def"]
    assert {name: int(value) for value, name in written.items() if name in LABELS} == LABELS


def test_the_network_of_the_recipe_is_small() -> None:
    parser = parser_of(MULTIRNET, "train")
    parser["network_def"] |= {key.partition("::")[2]: v for key, v in RECIPE["overlay"].items() if "::" in key}
    network = parser.get_parsed_content("network_def")
    assert 2e6 < sum(p.numel() for p in network.parameters()) < 3e6
    assert RECIPE["reasons"].keys() == RECIPE["overlay"].keys()


@pytest.mark.slow
def test_three_labels_are_learned() -> None:
    """Learn a class too, with the loss of the paper and two passes."""
    labels = torch.zeros(2, 1, 16, 16, 8)
    labels[0, 0, :5, 2:8] = 1
    labels[0, 0, 8:14, :6] = 2
    labels[1, 0, 3:9, 9:] = 3
    image = torch.cat([(labels == 1) + 2.0 * (labels == 2), 1.0 * (labels == 3)], 1) + 0.1 * torch.randn(
        2, 2, 16, 16, 8
    )
    targets = {"seg": labels, "class": torch.tensor([0, 1])}
    options = {"channels": (9, 16), "classifier_channels": (4, 8), "kernel_size": 3}
    network = MultiRNet(2, 2, out_channels=3, iterations=1, **options)
    loss = parser_of(MULTIRNET, "train").get_parsed_content("loss")
    assert isinstance(loss, SegmentationClassLoss)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        previous = None
        for _ in range(2):
            outputs = network(image, previous)
            optimizer.zero_grad()
            loss(outputs, targets).backward()
            optimizer.step()
            previous = outputs["seg"].detach().sigmoid()
    network.eval().dense = True
    with torch.no_grad():
        output = network(image)
    assert output.shape == (2, 3 + 2, 16, 16, 8) and output[:, 3:, 0, 0, 0].argmax(1).tolist() == [0, 1]
    for maps, label in zip(output[:, :3], labels):
        decided = DecideLabeld("pred")(AddBackgroundd("pred")({"pred": maps}))["pred"]
        assert (decided == label).float().mean() > 0.98
