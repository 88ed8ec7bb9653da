"""Test MA-MTLN on data of another kind: three labels, two modalities of MRI, and three classes of a case."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from common.methods.mamtln import MAMTLN, JaccardFocalLoss, UncertaintyWeightedLoss
from common.packaging import pack_bundle
from common.record import read_record
from common.reporting import read_class_scores, read_scores

from ...patients import CLASSES, LABELS, TESTS, write_patients
from ...workflows import assert_class_maps, assert_label_maps, config_of, results_in
from .tiny import MAMTLN_CT, NARROW

BOTH = ["image", "label"]
PLAN: dict[str, Any] = {
    **{"modalities": ["T1", "T2"], "labels": LABELS, "regions": {}, "label_map": {}, "segments": {}},
    **{"task": "both", "classes": CLASSES},
    "check": [{"_target_": "common.transforms.CheckMRId", "keys": "image"}],
    "normalize": [
        {"_target_": "common.transforms.ResampleAxesd", "keys": BOTH, "pixdim": [1.4, 1.4, 1.5],
         "mode": ["bilinear", "nearest"], "allow_missing_keys": True},
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    ],
    "augment": [
        {"_target_": "CastToTyped", "keys": BOTH, "dtype": "float32"},
        {"_target_": "RandSpatialCropd", "keys": BOTH, "roi_size": "@roi_size", "random_size": False},
        {"_target_": "RandShiftIntensityd", "keys": "image", "offsets": 0.2, "prob": 0.5},
    ],
    "optimizer": {"_target_": "torch.optim.AdamW", "_mode_": "callable", "lr": "@learning_rate"},
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_mode_": "callable", "T_max": "@max_epochs",
    },
    **{"roi_size": [16, 16, 8], "batch_size": 2, "updates_per_epoch": 2, "max_epochs": 1, "learning_rate": 0.002},
    **config_of(MAMTLN_CT, "plan")["overlay"],
    **{f"network_def::{key}": value for key, value in NARROW.items()},
}  # fmt: skip


@pytest.fixture
def patients(write_nifti: Callable[..., Path], tmp_path: Path) -> Path:
    """Write six patients."""
    return write_patients(write_nifti, tmp_path / "mri")


@pytest.fixture
def run(workflow: Callable, patients: Path, tmp_path: Path) -> Callable[..., None]:
    """Run configs of the bundle with the plan over them."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))

    def run_configs(*names: str, **options: Any) -> None:
        options = {"dataset_dir": str(patients), **options}
        workflow(MAMTLN_CT, *names, str(tmp_path / "plan"), tiny=False, **options).run()

    return run_configs


def test_one_overlay_serves_every_run(run: Callable, workflow: Callable, patients: Path, tmp_path: Path) -> None:
    models, out = tmp_path / "models", tmp_path / "out"
    run("train")
    assert "intensity" not in read_record(models / "run.json").settings
    assert not [*tmp_path.rglob("intensity.json")]

    run("train", "evaluate")
    scores = read_scores(out / "scores.csv")
    assert [row["case"] + ".nii.gz" for row in scores] == TESTS
    assert {f"Dice {name}" for name in LABELS} <= scores[0].keys()
    assert list(read_class_scores(out / "class_scores.csv"))[-3:] == [f"AUC {name}" for name in CLASSES]
    assert (out / "classes.csv").read_text().count("\n") == 3

    run("inference", output_dir=str(tmp_path / "masks"))
    assert_label_maps(tmp_path / "masks", patients / "labels", TESTS, {0, *LABELS.values()})
    result = json.loads((tmp_path / "masks" / "P5_class.json").read_text())
    assert list(result["probabilities"]) == CLASSES

    recorded = {"dataset_dir": str(patients), "output_dir": str(tmp_path / "recorded")}
    workflow(MAMTLN_CT, "inference", tiny=False, **recorded).run()  # the settings are in the record
    for name in TESTS:
        one, other = (nib.load(tmp_path / folder / name.replace(".", "_seg.", 1)) for folder in ("masks", "recorded"))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))

    for explained in ("severe", None):  # None: the most probable class of each window
        maps = tmp_path / f"maps of {explained}"
        run("inference", "explain", output_dir=str(maps), explain=explained)
        assert_class_maps(maps, patients / "labels", TESTS)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [JaccardFocalLoss(), DiceCELoss(to_onehot_y=True, softmax=True)])
def test_three_labels_and_classes_are_learnt(loss: Callable) -> None:
    label = torch.zeros(3, 1, 20, 20, 2)
    label[:, :, 2:18, 2:18], label[:, :, 6:18, 6:18], label[:, :, 10:18, 10:18] = 1, 2, 3
    classes = torch.arange(3)
    brightness = classes.reshape(3, 1, 1, 1, 1).expand_as(label) - 1.0
    image = torch.cat([label, brightness], 1) + 0.1 * torch.randn(3, 2, 20, 20, 2)
    network = MAMTLN(2, 4, 3, **NARROW, pool_stride=(1, 1, 1))
    criterion = UncertaintyWeightedLoss(loss)
    optimizer = torch.optim.Adam([*network.parameters(), *criterion.parameters()], lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        outputs = network(image)
        criterion(outputs, {"seg": label, "class": classes}).backward()
        optimizer.step()
    assert torch.equal(outputs["class"].argmax(1), classes)
    assert (outputs["seg"].argmax(1, keepdim=True) == label).float().mean() > 0.95


def test_a_list_without_classes_trains_the_segmentation(run: Callable, patients: Path, tmp_path: Path) -> None:
    listing = json.loads((patients / "dataset.json").read_text())
    for case in [case for cases in listing.values() for case in cases]:
        del case["class"]
    (patients / "dataset.json").write_text(json.dumps(listing))
    run("train", task="seg")
    run("train", "evaluate", task="seg")
    assert results_in(tmp_path / "out") == {"scores.csv", "evaluate.log"}
    assert (tmp_path / "out" / "made_by.json").is_file()
    run("inference", task="seg", output_dir=str(tmp_path / "masks"))
    assert_label_maps(tmp_path / "masks", patients / "labels", TESTS, {0, *LABELS.values()})


@pytest.mark.usefixtures("warm_packing")
def test_the_package_describes_the_other_data(run: Callable, tmp_path: Path) -> None:
    run("train")
    pack_bundle(MAMTLN_CT, tmp_path / "models" / "model.pt", tmp_path / "dist", tmp_path / "plan.json")
    configs = tmp_path / "dist" / MAMTLN_CT.name / "configs"
    inference = json.loads((configs / "inference.json").read_text())
    assert inference["intensity"] is None and inference["labels"] == LABELS
    formats = json.loads((configs / "metadata.json").read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    assert (image["num_channels"], image["channel_def"]) == (2, {"0": "T1", "1": "T2"})
    assert pred["num_channels"] == 1 + len(LABELS) + len(CLASSES)
    results = formats["post_processed_outputs"]
    named = {value: name for value, name in results["pred"]["channel_def"].items() if name != "unused"}
    assert named == {"0": "background", "1": "cortex", "3": "nucleus", "7": "cyst"}
    assert results["result"]["channel_def"] == {"0": "healthy", "1": "mild", "2": "severe"}
