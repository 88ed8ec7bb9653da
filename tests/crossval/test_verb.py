"""Cross-validate a tiny cohort with the real runs, and use the ensemble of its folds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.__main__ import main
from common.reporting import read_class_scores, read_classes, read_scores

from ..methods.mamtln.tiny import MAMTLN_CT
from ..warm_python import WarmPython
from ..workflows import TINY

CASES = [f"case_00{number}" for number in range(4)]


@pytest.fixture
def data(cohort: Callable, tmp_path: Path) -> Path:
    """Return the folder of four cases in two folds."""
    folder = Path(shutil.copytree(cohort(MAMTLN_CT), tmp_path / "data"))
    content = json.loads((folder / "dataset.json").read_text())
    listed = [case for section in ("training", "validation", "test") for case in content[section]]
    cases = sorted((case for case in listed if case["case"] in CASES), key=lambda case: case["case"])
    for order, case in enumerate(cases):
        case.update(fold=order % 2, order=order)
    (folder / "dataset.json").write_text(json.dumps({"modality": content["modality"], "training": cases}))
    return folder


@pytest.fixture
def crossval(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable:
    """Return a function that runs the verb with a plan and returns what it and its runs print."""
    (tmp_path / "plan.json").write_text(json.dumps(TINY[MAMTLN_CT.name]))

    def run(*options: str) -> str:
        monkeypatch.chdir(tmp_path)
        verb = ["crossval", MAMTLN_CT.name, "--dataset_dir", "data", "--overlay", "plan.json", "--out", "runs"]
        monkeypatch.setattr("sys.argv", ["common", *verb, "--max_epochs", "1", "--device", "cpu", *options])
        main()
        out: str = capfd.readouterr().out
        return out

    return run


def test_a_cross_validation_and_its_ensemble(
    crossval: Callable, workflow: Callable, warm_python: WarmPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    out = crossval("--folds", "1")
    assert "missing: fold 0" in out
    assert "stage 'training', epoch 1" in out  # the progress of the run
    trained = (runs / "fold1" / "model.pt").stat().st_mtime_ns
    monkeypatch.setattr("common.crossval.run.run_child", warm_python.run_child)
    out = crossval()
    assert "fold 1: finished before" in out and "missing" not in out
    assert "Dice tumour" in out and "class accuracy" in out
    assert (runs / "fold1" / "model.pt").stat().st_mtime_ns == trained
    for fold in (0, 1):
        written = {path.name for path in (runs / f"fold{fold}").iterdir()}
        assert {"model.pt", "run.json", "train.log", "scores"} <= written
    assert [row["case"] for row in read_scores(runs / "scores.csv")] == CASES
    classes = read_classes(runs / "classes.csv")
    assert [row["case"] for row in classes] == CASES
    right = sum(row["class"] == row["predicted"] for row in classes) / len(classes)
    assert read_class_scores(runs / "class_scores.csv")["accuracy"] == right

    plan, ensemble = str(tmp_path / "plan"), str(runs / "ensemble")
    masks, results = [], []
    for names in (("inference", ensemble), ("inference", plan, ensemble), ("inference", plan)):
        folder = tmp_path / f"masks{len(masks)}"
        options = {"dataset_dir": str(tmp_path / "data" / "images"), "ckpt_dir": str(runs), "limit": 1}
        flow = workflow(MAMTLN_CT, *names, tiny=False, output_dir=str(folder), **options)
        flow.run()
        assert len(flow.network_def.networks) == 2
        masks.append(np.asarray(nib.load(folder / "case_000_seg.nii.gz").dataobj))
        results.append(json.loads((folder / "case_000_class.json").read_text()))
    assert results[1:] == results[:1] * 2
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
