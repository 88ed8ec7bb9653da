"""Run the documented commands in an empty working directory, as users type them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.omnet.tiny import OMNET, sure_of_parts
from ..workflows import results_in
from .commands import assert_ends_in_one_line


@pytest.mark.slow
def test_inference(command: Callable, bundle_run: Callable, weights: Path, cohort: Callable, tmp_path: Path) -> None:
    done = command(*bundle_run("inference", dataset_dir=cohort(MMFNET)))
    assert done.returncode == 0, done.stderr
    names = {f"case_00{i}_seg.nii.gz" for i in (4, 5)}
    assert results_in(tmp_path / "out") == {*names, "inference.log"}
    for name in names:
        assert nib.load(tmp_path / "out" / name).shape[:2] == (28, 32)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "2 of 2 cases done" in done.stdout


@pytest.mark.slow
def test_ensemble_inference(warm_command: Callable, bundle_run: Callable, cohort: Callable, tmp_path: Path) -> None:
    """Give lists and words as text, as a shell does."""
    for seed in (0, 5):
        torch.save(sure_of_parts(seed=seed).state_dict(), tmp_path / f"{seed}.pt")
    options = {
        "weights": [str(tmp_path / "0.pt"), str(tmp_path / "5.pt")],
        "roi_size": "[32,32,16]",
        "keep": "[20,20,5]",
        "levels": 2,
        "clean": "false",
        "label_code": "brats2023",
    }
    done = warm_command(*bundle_run("inference", "ensemble", bundle=OMNET, dataset_dir=cohort(OMNET), **options))
    assert done.returncode == 0, done.stderr
    maps = [np.asarray(nib.load(path).dataobj) for path in (tmp_path / "out").glob("*_seg.nii.gz")]
    assert len(maps) == 2
    assert set(np.unique(maps)) <= {0, 1, 2, 3} and np.any(maps)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "2 of 2 cases done" in done.stdout


@pytest.mark.slow
def test_case_names_keep_their_text(
    warm_command: Callable, bundle_run: Callable, busy_weights: Callable, cohort: Callable, tmp_path: Path
) -> None:
    busy_weights(MPUNET)
    scan = (cohort(MPUNET) / "images" / "case_004.nii.gz").read_bytes()
    (tmp_path / "scans").mkdir()
    for name in ("007", "12", "1e3"):
        (tmp_path / "scans" / f"{name}.nii.gz").write_bytes(scan)
    options = {"bundle": MPUNET, "dataset_dir": tmp_path / "scans", "probabilities": "true"}
    done = warm_command(*bundle_run("inference", cases="007,1e3", **options))
    assert done.returncode == 0, done.stderr
    names = {f"{name}_{kind}.nii.gz" for name in ("007", "1e3") for kind in ("seg", "prob")}
    assert results_in(tmp_path / "out") == {*names, "inference.log"}
    done = warm_command(*bundle_run("inference", cases="12", resume="true", **options))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "12_prob.nii.gz").exists()
    done = warm_command(*bundle_run("inference", cases="7,12", **options))
    assert_ends_in_one_line(done, "--cases 7: no such case in dataset_dir=", "which has 3: 007, 12, 1e3")


@pytest.mark.slow
def test_inference_without_data_ends_in_one_line(
    warm_command: Callable, bundle_run: Callable, weights: Path, tmp_path: Path
) -> None:
    done = warm_command(*bundle_run("inference", dataset_dir=tmp_path / "nowhere"))
    assert_ends_in_one_line(done, str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_training_without_a_data_list_ends_in_one_line(
    warm_command: Callable, bundle_run: Callable, tmp_path: Path
) -> None:
    done = warm_command(*bundle_run("train", dataset_dir=tmp_path / "elsewhere"))
    assert_ends_in_one_line(done, str(tmp_path / "elsewhere" / "dataset.json"), "python -m common datalist")


@pytest.mark.slow
def test_a_verb_fails_in_one_line(warm_command: Callable) -> None:
    done = warm_command("common", "phantoms", MMFNET.name, "--out=data", "--cases=1")
    assert_ends_in_one_line(done, "--cases 1: expected at least 3")
