"""Test what only MultiR-Net's bundle has: lungs, further passes, patches on lesions, classes of cases."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events

from common.engines import StagedTrainer
from common.engines.training_folder import STATE_FILE
from common.errors import root_cause
from common.reporting import read_class_scores, read_classes, read_scores

from ...workflows import assert_class_maps, assert_label_maps, results_in
from .settings import ABLATIONS, CLASSES, SCORES
from .tiny import MULTIRNET, TINY

COLUMNS = [f"{score} lesion" for score in SCORES]


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    return busy_weights(MULTIRNET)


def listed(folder: Path, target: Path, change: Callable[[dict], None]) -> Path:
    """Write the changed data list of a folder to another one, with absolute paths; return that one."""
    listing = json.loads((folder / "dataset.json").read_text())
    for section in ("training", "validation", "test"):
        for case in listing[section]:
            case.update({key: str(folder / case[key]) for key in ("image", "label")})
    change(listing)
    target.mkdir()
    (target / "dataset.json").write_text(json.dumps(listing))
    return target


def test_train_evaluate_infer(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    flow = workflow(MULTIRNET, "train")
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    trainer: StagedTrainer = flow.trainer
    trainer.add_event_handler(Events.STARTED, lambda: trainer.optimizer.register_step_post_hook(count))
    flow.run()
    assert steps == 2 * 2 * 3  # epochs, batches, passes
    assert results_in(tmp_path / "models") == {
        "model.pt",
        STATE_FILE,
        "run.json",
        "train.log",
        "tensorboard",
    }

    flow = workflow(MULTIRNET, "train", "evaluate")
    flow.run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    tests = sorted(p.name for p in (cohort(MULTIRNET) / "labels").iterdir())[-2:]  # of CAP and normal
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    assert list(rows[0]) == ["case", *COLUMNS]
    of_classes = read_class_scores(tmp_path / "out" / "class_scores.csv")
    assert list(of_classes)[:5] == ["accuracy", "macro recall", "macro precision", "F1", "macro AUC"]
    assert flow.evaluator.state.metrics["class accuracy"] == of_classes["accuracy"]

    workflow(MULTIRNET, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(MULTIRNET) / "labels", tests, {0, 1})
    for name, row in zip(tests, read_classes(tmp_path / "out" / "classes.csv"), strict=True):
        result = json.loads((tmp_path / "masks" / name.replace(".nii.gz", "_class.json")).read_text())
        assert list(result) == ["case", "class", "probabilities", "lungs"]
        assert list(result["probabilities"]) == CLASSES
        for class_name, probability in result["probabilities"].items():
            assert row[f"probability {class_name}"] == pytest.approx(probability, abs=1e-5)  # as in evaluation


def test_a_normal_case_has_volumes_and_no_other_scores(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    workflow(MULTIRNET, "train", "evaluate").run()
    workflow(MULTIRNET, "inference").run()
    ill, normal = read_scores(tmp_path / "out" / "scores.csv")
    for row in (ill, normal):
        mask, label = (
            np.asarray(nib.load(folder / name).dataobj) > 0
            for folder, name in (
                (tmp_path / "out", f"{row['case']}_seg.nii.gz"),
                (cohort(MULTIRNET) / "labels", f"{row['case']}.nii.gz"),
            )
        )
        ml = math.prod(nib.load(cohort(MULTIRNET) / "labels" / f"{row['case']}.nii.gz").header.get_zooms()) / 1000
        assert 0.01 < mask.mean() < 0.9
        assert row["volume (ml) lesion"] == pytest.approx(mask.sum() * ml, rel=1e-4)
        assert row["true volume (ml) lesion"] == pytest.approx(label.sum() * ml, rel=1e-4)
        dice = 2 * (mask & label).sum() / (mask.sum() + label.sum()) if label.any() else math.nan
        assert row["Dice lesion"] == pytest.approx(dice, abs=1e-5, nan_ok=True)
    assert [name for name in COLUMNS if math.isnan(normal[name])] == COLUMNS[:5]
    assert not any(math.isnan(ill[name]) for name in COLUMNS)


def silent(folder: Path) -> None:
    """Change the weights so that the network finds no lesion."""
    state = torch.load(folder / "model.pt", weights_only=True)
    heads = [key for key in state if key.startswith("segmentation.") and "head" in key]
    for key in heads:
        state[key] = state[key] * 0 - (9 if key.endswith("bias") else 0)
    assert any(key.endswith("bias") for key in heads)
    torch.save(state, folder / "model.pt")


def test_a_miss_is_counted_and_has_no_distance(workflow: Callable, busy: Path, tmp_path: Path) -> None:
    silent(busy)
    workflow(MULTIRNET, "train", "evaluate").run()
    ill, normal = read_scores(tmp_path / "out" / "scores.csv")
    assert {name: ill[name] for name in COLUMNS if name not in ("ASSD lesion", "true volume (ml) lesion")} == {
        **dict.fromkeys(["Dice lesion", "surface Dice lesion", "surface overlap lesion", "volume (ml) lesion"], 0.0),
        "missed lesion": 1.0,
    }
    assert math.isnan(ill["ASSD lesion"]) and math.isnan(normal["missed lesion"])


def test_evaluation_of_patches_on_lesions(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    flow = workflow(MULTIRNET, "train", "evaluate", "evaluate_roi")
    cases = [flow.parser.get_parsed_content("validate::dataset")[i] for i in range(2)]
    for case in cases:
        assert case["image"].shape == case["label"].shape == (1, 16, 16, 8)
        assert case["image"].pixdim.tolist() == pytest.approx([8, 8, 9])
    flow.run()
    ill, normal = read_scores(tmp_path / "out" / "scores.csv")
    ml = 8 * 8 * 9 / 1000
    assert (
        ill["true volume (ml) lesion"] == pytest.approx(cases[0]["label"].sum().item() * ml, rel=1e-4)
        and ill["Dice lesion"] > 0
    )
    assert ill["true volume (ml) lesion"] > 10 and normal["true volume (ml) lesion"] == 0
    assert math.isnan(normal["Dice lesion"])
    assert [row["class"] for row in read_classes(tmp_path / "out" / "classes.csv")] == ["CAP", "normal"]

    flow = workflow(MULTIRNET, "train", "evaluate", output_dir=str(tmp_path / "whole"))
    flow.run()
    assert read_scores(tmp_path / "whole" / "scores.csv")[0]["volume (ml) lesion"] > ill["volume (ml) lesion"]


def test_validation_sees_patches_on_lesions(workflow: Callable, cohort: Callable) -> None:
    dataset = workflow(MULTIRNET, "train").parser.get_parsed_content("validate::dataset")
    for case in dataset:
        assert case["image"].shape == (1, 16, 16, 8)
        if case["class"] < 2:
            assert case["label"][0, 4:12, 4:12, 2:6].any()
        assert {"image", "label", "class"} <= case.keys() and not {"centres", "lungs"} & case.keys()


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name not in ("tversky_loss", "iterations_1")])
def test_an_ablation_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    flow = workflow(MULTIRNET, "train", f"ablations/{name}", max_epochs=1)
    before = {key: value.clone() for key, value in flow.network_def.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    assert sum(not torch.equal(after[key], before[key]) for key in after) > 0.9 * len(after)
    assert any(key.startswith("classifier.") for key in after) == (name != "segmentation_only")

    workflow(MULTIRNET, "train", "evaluate", f"ablations/{name}").run()
    workflow(MULTIRNET, "inference", f"ablations/{name}").run()
    written = {name for name in results_in(tmp_path / "out") if not name.endswith(".log")}
    cases = {f"case_00{i}_{kind}" for i in (4, 5) for kind in ("seg.nii.gz", "class.json")}
    of_classes = {"classes.csv", "class_scores.csv"} if name != "segmentation_only" else set()
    assert written == {"scores.csv", *cases, *of_classes}
    assert (tmp_path / "out" / "made_by.json").is_file()
    result = json.loads((tmp_path / "out" / "case_004_class.json").read_text())
    assert ("class" in result) == (name != "segmentation_only") and "lungs" in result


def test_the_segmentation_trains_without_classes(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    """Train as on a public data set in which all cases have one diagnosis or an unknown one."""

    def drop(listing: dict) -> None:
        for section in ("training", "validation", "test"):
            for case in listing[section]:
                del case["class"]

    folder = str(listed(cohort(MULTIRNET), tmp_path / "data", drop))
    workflow(MULTIRNET, "train", "ablations/segmentation_only", dataset_dir=folder, max_epochs=1).run()
    assert (tmp_path / "models" / "model.pt").exists()


def test_a_training_of_normal_cases_alone_can_validate(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    def normal(listing: dict) -> None:
        cases = [case for section in ("training", "validation", "test") for case in listing[section]]
        normal = [case for case in cases if case["class"] == "normal"]
        listing["training"], listing["validation"] = normal[:1], normal[1:2]
        assert len(normal) > 1

    folder = str(listed(cohort(MULTIRNET), tmp_path / "data", normal))
    models = tmp_path / "models"
    workflow(MULTIRNET, "train", dataset_dir=folder, ckpt_dir=str(models), max_epochs=1).run()
    assert (models / "model.pt").exists()
    with pytest.raises(RuntimeError) as error:  # nothing to learn where the network segments alone
        alone = {"dataset_dir": folder, "ckpt_dir": str(tmp_path / "alone"), "max_epochs": 1}
        workflow(MULTIRNET, "train", "ablations/segmentation_only", **alone).run()
    assert "the labels of all 1 cases are empty" in str(root_cause(error.value))


def test_the_box_of_the_lungs_is_in_the_result(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    """Compare a scan with the same scan in another order of axes: the box is in voxels of its own grid."""
    (tmp_path / "scans").mkdir()
    scan = nib.load(cohort(MULTIRNET) / "images" / "case_002.nii.gz")
    turn = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt("SLP"))
    nib.save(scan, tmp_path / "scans" / "plain.nii.gz")
    nib.save(scan.as_reoriented(turn), tmp_path / "scans" / "turned.nii.gz")
    workflow(MULTIRNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    plain, turned = (
        json.loads((tmp_path / "out" / f"{name}_class.json").read_text())["lungs"] for name in ("plain", "turned")
    )
    (x0, y0, z0), (x1, y1, z1) = plain["first"], plain["last"]
    assert 0 < x0 < x1 < scan.shape[0] - 1 and 0 < y0 < y1 < scan.shape[1] - 1
    nx, ny, _ = scan.shape
    assert turned == {"first": [z0, nx - 1 - x1, ny - 1 - y1], "last": [z1, nx - 1 - x0, ny - 1 - y0]}
    mask = np.asarray(nib.load(tmp_path / "out" / "plain_seg.nii.gz").dataobj)
    assert mask.any()
    mask[x0 : x1 + 1, y0 : y1 + 1, z0 : z1 + 1] = 0
    assert not mask.any()  # nothing outside


def test_lesions_outside_the_lungs_train_and_leak_no_label(
    workflow: Callable, cohort: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    label = nib.load(cohort(MULTIRNET) / "labels" / "case_000.nii.gz")
    lesion = np.zeros(label.shape, np.uint8)
    lesion[:3, -3:, :2] = 1  # in a corner of the field of view
    nib.save(nib.Nifti1Image(lesion, label.affine), tmp_path / "corner_seg.nii.gz")
    case = {
        "image": str(cohort(MULTIRNET) / "images" / "case_000.nii.gz"),
        "label": str(tmp_path / "corner_seg.nii.gz"),
    }
    shapes = {}
    for configs in (("train",), ("train", "evaluate"), ("train", "evaluate", "evaluate_roi")):
        parser = workflow(MULTIRNET, *configs, task="seg").parser
        d = parser.get_parsed_content("validate#preprocessing")(dict(case))
        whole_scan = configs[-1] == "evaluate"
        assert ("label" not in d) if whole_scan else (d["label"] > 0).any()
        assert ("corner_seg.nii.gz: " in caplog.text) != whole_scan
        caplog.clear()
        shapes[configs[-1]] = d["image"].shape
    alone = workflow(MULTIRNET, "inference").parser.get_parsed_content("preprocessing")({"image": case["image"]})
    assert shapes["evaluate"] == alone["image"].shape != shapes["train"] == shapes["evaluate_roi"]


def test_a_scan_without_lungs_does_not_stop_the_others(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    (tmp_path / "scans").mkdir()
    shutil.copy(cohort(MULTIRNET) / "images" / "case_000.nii.gz", tmp_path / "scans" / "chest.nii.gz")
    scan = nib.load(tmp_path / "scans" / "chest.nii.gz")
    water = np.maximum(np.asarray(scan.dataobj), -100).astype(np.int16)  # as low as fat, but no air
    nib.save(nib.Nifti1Image(water, scan.affine), tmp_path / "scans" / "water.nii.gz")
    flow = workflow(MULTIRNET, "inference", dataset_dir=str(tmp_path / "scans"))
    with pytest.raises(RuntimeError) as error:
        flow.run()
    assert str(error.value.__cause__).startswith("1 of 2 cases failed: water (")
    message = flow.evaluator.failures["water"]
    assert "water.nii.gz: no lungs found" in message and "expected a chest CT in HU" in message
    assert results_in(tmp_path / "out") == {"chest_seg.nii.gz", "chest_class.json", "inference.log"}


def test_activation_maps_lie_on_the_grid_of_the_scan(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    workflow(MULTIRNET, "inference", "explain", explain="CAP").run()
    names = ["case_004.nii.gz", "case_005.nii.gz"]
    assert_class_maps(tmp_path / "out", cohort(MULTIRNET) / "labels", names)


def test_the_tiny_cohort_has_every_class(cohort: Callable) -> None:
    listing = json.loads((cohort(MULTIRNET) / "dataset.json").read_text())
    assert {case["class"] for case in listing["training"]} == set(TINY.phantom.classes) == set(CLASSES)
