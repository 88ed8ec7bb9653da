"""Test what only MMFNet's bundle has: three modalities and a training in five stages."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.engines.training_folder import STATE_FILE
from common.reporting import read_scores

from ...workflows import assert_label_maps, mask_of, results_in
from .tiny import MMFNET, TINY


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    return busy_weights(MMFNET)


@pytest.fixture
def trained(workflow: Callable, tmp_path: Path) -> Path:
    workflow(MMFNET, "train").run()
    return tmp_path / "models"


def test_train_evaluate_infer(workflow: Callable, trained: Path, cohort: Callable, tmp_path: Path) -> None:
    assert {p.name for p in trained.glob("*.pt")} == {
        "model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt", STATE_FILE,
    }  # fmt: skip
    assert "stage 'fine-tuning', epoch 8" in (trained / "train.log").read_text()
    assert list((trained / "tensorboard").iterdir())

    flow = workflow(MMFNET, "train", "evaluate")
    flow.run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    tests = sorted(p.name for p in (cohort(MMFNET) / "labels").iterdir())[-2:]
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    assert set(rows[0]) == {"case", "Dice tumour", "HD95 tumour", "ASSD tumour", "AP", "Dice loss"}
    assert all(0 <= row[name] <= 1 for row in rows for name in ("Dice tumour", "AP", "Dice loss"))
    assert flow.evaluator.state.metrics["AP"] == pytest.approx(np.mean([row["AP"] for row in rows]), abs=1e-6)

    workflow(MMFNET, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(MMFNET) / "labels", tests, {0, 1})


def test_scores_follow_from_the_masks(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    workflow(MMFNET, "train", "evaluate").run()
    workflow(MMFNET, "inference").run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert len(rows) == 2
    for row in rows:
        mask = mask_of(tmp_path / "out" / f"{row['case']}_seg.nii.gz")
        label = np.asarray(nib.load(cohort(MMFNET) / "labels" / f"{row['case']}.nii.gz").dataobj) > 0
        assert row["Dice tumour"] == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()), abs=1e-5)


def test_a_finished_stage_is_not_repeated(workflow: Callable, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in trained.glob("*.pt")}
    with caplog.at_level("INFO"):
        workflow(MMFNET, "train", resume=True).run()
    assert "training is complete after 8 epochs" in caplog.text
    assert {p.name: p.stat().st_mtime_ns for p in trained.glob("*.pt")} == before


def test_broken_cases_do_not_stop_the_others(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("good", "truncated", "incomplete", "twin"):
        (scans / name).mkdir(parents=True)
        for modality in ("T1", "T2", "CET1"):
            shutil.copy(cohort(MMFNET) / "images" / f"case_000_{modality}.nii.gz", scans / name)
    broken = scans / "truncated" / "case_000_T2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    (scans / "incomplete" / "case_000_T2.nii.gz").unlink()
    flow = workflow(MMFNET, "inference", dataset_dir=str(scans))
    with pytest.raises(RuntimeError) as error:
        flow.run()
    assert re.match(r"2 of 4 cases failed: incomplete \(.*\), truncated \(", str(error.value.__cause__))
    assert "truncated/case_000_T2.nii.gz: not a complete NIfTI file" in flow.evaluator.failures["truncated"]
    assert "incomplete: no T2 among" in flow.evaluator.failures["incomplete"]
    good, twin = (mask_of(tmp_path / "out" / f"{name}_seg.nii.gz") for name in ("good", "twin"))
    np.testing.assert_array_equal(good, twin)
    assert results_in(tmp_path / "out") == {
        "good_seg.nii.gz", "twin_seg.nii.gz", "inference.log",
    }  # fmt: skip
    states = {p.name: json.loads(p.read_text())["state"] for p in (tmp_path / "out").glob("*_seg.json")}
    assert states == {
        "good_seg.json": "done", "twin_seg.json": "done", "truncated_seg.json": "failed",
        "incomplete_seg.json": "failed",
    }  # fmt: skip


def test_three_files_and_a_stacked_file_give_the_same_mask(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    files = [cohort(MMFNET) / "images" / f"case_000_{m}.nii.gz" for m in ("T1", "T2", "CET1")]
    (tmp_path / "scans" / "separate").mkdir(parents=True)
    for file in files:
        shutil.copy(file, tmp_path / "scans" / "separate")
    volumes = [nib.load(f) for f in files]
    stacked = np.stack([np.asarray(v.dataobj) for v in volumes], 3)
    nib.save(nib.Nifti1Image(stacked, volumes[0].affine), tmp_path / "scans" / "stacked.nii.gz")
    workflow(MMFNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    paths = [tmp_path / "out" / f"{name}_seg.nii.gz" for name in ("separate", "stacked")]
    np.testing.assert_array_equal(mask_of(paths[0]), mask_of(paths[1]))
    np.testing.assert_array_equal(nib.load(paths[0]).affine, nib.load(paths[1]).affine)


@pytest.mark.parametrize("axes", [("L", "P", "S"), ("P", "S", "R"), ("S", "L", "A")])
def test_mask_does_not_depend_on_the_axis_order(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path, axes: tuple[str, str, str]
) -> None:
    for name, turn in (("plain", False), ("turned", True)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for modality in ("T1", "T2", "CET1"):
            image = nib.load(cohort(MMFNET) / "images" / f"case_000_{modality}.nii.gz")
            if turn:
                to = nib.orientations.ornt_transform(
                    nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
                )
                image = image.as_reoriented(to)
            nib.save(image, tmp_path / "scans" / name / f"{modality}.nii.gz")
    workflow(MMFNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    plain, turned = (nib.load(tmp_path / "out" / f"{n}_seg.nii.gz") for n in ("plain", "turned"))
    assert nib.aff2axcodes(turned.affine) == axes
    assert mask_of(tmp_path / "out" / "plain_seg.nii.gz").any()
    np.testing.assert_array_equal(nib.as_closest_canonical(turned).get_fdata(), plain.get_fdata())


def test_early_stopping_ends_a_stage(workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = workflow(MMFNET, "train", max_epochs=6, patience=2, learning_rate=1e-30, fine_tuning_rate=1e-30)
    trainer = flow.trainer
    losses = {}  # a validation that never gets better than in a stage's first epoch
    run = trainer.evaluator.run
    monkeypatch.setattr(
        trainer.evaluator, "run", lambda epoch: (run(epoch), losses.update({epoch: trainer.stage.name}))
    )
    flow.run()
    names = list(losses.values())
    assert names.count("warm-up") == 1
    for stage in ("T1", "T2", "CET1", "fine-tuning"):
        assert 3 <= names.count(stage) <= 6
    state = torch.load(tmp_path / "models" / STATE_FILE, weights_only=True)
    assert state["epoch"] == len(names)


def test_max_epochs_of_the_trainer_ends_the_training(workflow: Callable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        workflow(MMFNET, "train", **{"train::trainer::max_epochs": 3}).run()
    assert "max_epochs=3 ends the training in stage 'T2'" in caplog.text


def test_a_case_without_tumour_has_a_score(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    """Score 0 for a false alarm in a case without tumour, and 1 for an empty mask."""
    shutil.copytree(cohort(MMFNET), tmp_path / "data")
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(tmp_path / "data")).run()
    state = torch.load(busy / "model.pt", weights_only=True)
    state["head.weight"] *= 0
    state["head.bias"] = torch.tensor([-9.0])
    torch.save(state, busy / "silent.pt")
    other = {"weights": str(busy / "silent.pt"), "output_dir": str(tmp_path / "silent")}
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(tmp_path / "data"), **other).run()
    alarmed, silent = (read_scores(tmp_path / name / "scores.csv") for name in ("out", "silent"))
    assert [row["Dice tumour"] for row in alarmed] == [0, 0]
    assert [row["Dice tumour"] for row in silent] == [1, 1]
    assert all(np.isnan(row["AP"]) for row in alarmed)


def test_the_property_max_epochs_limits_all_stages(workflow: Callable, tmp_path: Path) -> None:
    flow = workflow(MMFNET, "train", updates_per_epoch=1)
    assert flow.max_epochs == TINY.epochs
    flow.max_epochs = 1
    flow.initialize()
    flow.run()
    assert flow.trainer.state.epoch == 1
    assert {p.name for p in (tmp_path / "models").glob("single*.pt")} == {"single_T1.pt"}
