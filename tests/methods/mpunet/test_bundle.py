"""Test what only MPU-Net's bundle has: slices of 1 mm, any number of slices, its schedule and its tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.methods.mpunet import MPUNet
from common.reporting import read_scores

from ...workflows import assert_label_maps, overlay, parameters, parser_of, rates_of
from .tiny import MPUNET

SCORES = ["Dice", "accuracy", "precision", "specificity", "IoU", "MCC", "recall", "NPV"]
ABLATIONS = {  # parameters of the network
    "no_attention": 21_425_014,
    "no_gates": 21_418_523,
    "released_loss": 21_507_255,
    "single_scale": 21_506_353,
    "tumour": 21_507_739,
    "two_branch": 23_387_351,
    "unet": 2_326_638,
}


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    return busy_weights(MPUNET)


def test_the_defaults_are_the_papers() -> None:
    """Compare data with section 4.1 of the paper, optimiser and schedule with 4.2."""
    parser = parser_of(MPUNET, "train")
    network, (stage,) = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == 21_507_255 and network.dense
    assert (stage.max_epochs, stage.weights, stage.patience) == (600, "model.pt", None)
    rates = rates_of(stage, 201)
    assert [rates[epoch - 1] for epoch in (1, 100, 101, 200, 201)] == [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    settings = {
        "batch_size": 1,
        "labels": {"liver": 1},
        "label_map": {"1": 1, "2": 1},
        "hounsfield_range": [-200, 200],
        "in_plane": 256,
        "slice_thickness": 1.0,
        "roi_size": [256, 256, 48],
        "slice_step": 24,
    }
    assert {key: parser[key] for key in settings} == settings
    loss = parser.get_parsed_content("loss")
    assert (loss.weight, loss.decay, loss.every) == (0.4, 0.8, 30)
    outputs = {name: torch.rand(1, 2, 8, 8, 8).softmax(1) for name in ("seg", "aux_8", "aux_4", "aux_2")}
    targets = {"seg": (torch.rand(1, 1, 8, 8, 8) > 0.5).float()}
    loss.set_epoch(31)
    single = {name: float(loss.loss(output, targets["seg"])) for name, output in outputs.items()}
    auxiliary = single["aux_8"] + single["aux_4"] + single["aux_2"]
    assert float(loss(outputs, targets)) == pytest.approx(single["seg"] + 0.32 * auxiliary, rel=1e-5)


def test_every_ablation_is_in_the_table() -> None:
    assert {file.stem for file in (MPUNET / "configs").glob("[at]*/*.json")} == set(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_has_its_network_and_loss(name: str) -> None:
    parser = parser_of(MPUNET, "train", overlay(MPUNET, name))
    assert parameters(parser.get_parsed_content("network_def")) == ABLATIONS[name]
    loss = parser.get_parsed_content("scale_loss")
    assert loss.ce_on_sigmoid == (name == "released_loss")


def test_train_evaluate_infer(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    workflow(MPUNET, "train").run()
    workflow(MPUNET, "train", "evaluate").run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    tests = sorted(p.name for p in (cohort(MPUNET) / "labels").iterdir())[-2:]
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    assert list(rows[0]) == ["case", *(f"{score} liver" for score in SCORES)]
    workflow(MPUNET, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(MPUNET) / "labels", tests, {0, 1})


def test_the_liver_is_the_organ_with_its_tumours(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    workflow(MPUNET, "train", "evaluate").run()
    workflow(MPUNET, "inference").run()
    for row in read_scores(tmp_path / "out" / "scores.csv"):
        mask = np.asarray(nib.load(tmp_path / "out" / f"{row['case']}_seg.nii.gz").dataobj) > 0
        label = np.asarray(nib.load(cohort(MPUNET) / "labels" / f"{row['case']}.nii.gz").dataobj)
        assert set(np.unique(label)) == {0, 1, 2} and 0.01 < mask.mean() < 0.99
        liver = label > 0
        tp, fp, fn = (mask & liver).sum(), (mask & ~liver).sum(), (~mask & liver).sum()
        assert row["Dice liver"] == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-5)
        assert row["precision liver"] == pytest.approx(tp / (tp + fp), abs=1e-5)
        assert row["recall liver"] == pytest.approx(tp / (tp + fn), abs=1e-5)


@pytest.mark.parametrize("name", ["no_attention", "no_gates", "single_scale", "tumour", "two_branch"])
def test_an_ablation_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    flow = workflow(MPUNET, "train", overlay(MPUNET, name), max_epochs=1)
    before = {key: value.clone() for key, value in flow.network_def.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    assert sum(not torch.equal(after[key], before[key]) for key in after) > 0.9 * len(after)
    workflow(MPUNET, "train", "evaluate", overlay(MPUNET, name)).run()
    regions = ["liver", "tumour"] if name == "tumour" else ["liver"]
    row = read_scores(tmp_path / "out" / "scores.csv")[0]
    assert list(row) == ["case", *(f"{score} {region}" for score in SCORES for region in regions)]
    workflow(MPUNET, "inference", overlay(MPUNET, name)).run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


def test_the_u_net_trains(workflow: Callable, tmp_path: Path) -> None:
    narrow = {"network_def::channels": [2, 2, 4, 4], "roi_size": [32, 32, 16], "slice_step": 8, "max_epochs": 1}
    workflow(MPUNET, "train", "ablations/unet", **narrow).run()
    workflow(MPUNET, "inference", "ablations/unet", **narrow).run()
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((40, 30, 3), (9.0, 9.0, 5.0)), ((20, 44, 90), (9.0, 7.0, 3.0)), ((64, 64, 11), (5.0, 5.0, 25.0))],
    ids=["few slices", "many slices", "thick slices"],
)
def test_any_number_of_slices_and_any_field_of_view(
    workflow: Callable, busy: Path, tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    (tmp_path / "scans").mkdir()
    volume = np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1])
    nib.save(nib.Nifti1Image(volume, affine), tmp_path / "scans" / "scan.nii.gz")
    workflow(MPUNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    mask = nib.load(tmp_path / "out" / "scan_seg.nii.gz")
    assert mask.shape == shape
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    assert 0 < np.asarray(mask.dataobj).mean() < 1


@pytest.mark.parametrize("name", ["train", "inference"])
def test_padding_is_air(name: str) -> None:
    parser = parser_of(MPUNET, name)
    steps = [*parser["normalize"], *parser["pad"]]
    ids = {step["_target_"].rpartition(".")[2]: step for step in reversed(steps)}  # the first of each, the image's
    for step in ("ClipScaled", "SpatialPadd"):
        parser[step] = ids[step]
    pad, scale = (parser.get_parsed_content(step) for step in ("SpatialPadd", "ClipScaled"))
    assert pad({"image": torch.zeros(1, 4, 4, 4)})["image"].min() == -1
    low, high = parser["hounsfield_range"]
    ends = scale({"image": torch.tensor([low - 900.0, low, high, high + 900.0]).reshape(1, 4, 1, 1)})["image"]
    assert ends.flatten().tolist() == [-1, -1, 1, 1]


def test_a_network_for_two_structures_has_three_channels() -> None:
    network = parser_of(MPUNET, "inference", "tasks/tumour").get_parsed_content("network_def")
    assert isinstance(network, MPUNet)
    assert network.dense
