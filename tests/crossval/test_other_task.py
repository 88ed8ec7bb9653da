"""Take a task that no bundle is for through plan, crossval, the ensemble, pack, and the package elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.__main__ import main
from common.reporting import read_classes, read_scores

from ..bundles.packed import parser_of
from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mamtln.tiny import NARROW as NARROW_MAMTLN
from ..methods.mpunet.tiny import MPUNET
from ..patients import CLASSES, LABELS, write_patients

SHORT = {"max_epochs": 1, "updates_per_epoch": 2, "batch_size": 1, "amp": False, "val_interval": 1}
MODALITIES = {"0": "T1", "1": "T2"}


@pytest.fixture
def taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Take the data in ``data`` all the way; returns the folder with the ensemble's and the package's results."""

    def verb(*words: Any) -> None:
        monkeypatch.setattr("sys.argv", ["common", *map(str, words)])
        main()

    def infer(folder: Path, configs: list[str], root: Path, *more: str) -> None:
        command = [
            sys.executable,
            "-m",
            "monai.bundle",
            "run",
            "--bundle_root",
            str(root),
            "--config_file",
            str(configs),
        ]
        options = ["--dataset_dir", "scans", "--output_dir", str(folder), "--probabilities", "true", *more]
        path = {} if root.is_relative_to(tmp_path) else {"PYTHONPATH": str(root.parents[1])}
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=False, env={**os.environ, **path}
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def take(bundle: Path, narrow: dict[str, Any]) -> Path:
        monkeypatch.chdir(tmp_path)
        verb("plan", bundle.name, "--dataset_dir", "data", "--out", "plan.json", "--hours", "0.01", "--fold", 0)
        plan = Path("plan.json")
        plan.write_text(json.dumps({**json.loads(plan.read_text()), **narrow, **SHORT}))
        options = ("--dataset_dir", "data", "--overlay", plan, "--device", "cpu")
        verb("crossval", bundle.name, *options, "--out", "runs", "--folds", "0,1")
        infer(
            tmp_path / "before",
            [str(bundle / "configs" / "inference.json"), "plan.json", "runs/ensemble.json"],
            bundle, "--ckpt_dir", "runs",
        )  # fmt: skip
        verb("pack", bundle.name, "--weights", "runs/model.pt", "--overlay", plan, "--scores", "runs", "--out", "dist")
        package = (tmp_path / "dist" / bundle.name).rename(tmp_path / "elsewhere")
        infer(tmp_path / "after", [str(package / "configs" / "inference.json")], package)
        return package

    return take


def assert_same_results(folder: Path, labels: dict[str, int]) -> None:
    scans = sorted(path.name for path in (folder / "labels").iterdir())
    assert len(scans) == 2
    for name in scans:
        case = name.removesuffix(".nii.gz")
        truth = nib.load(folder / "labels" / name)
        for kind in ("seg", "prob"):
            before, after = (nib.load(folder / run / f"{case}_{kind}.nii.gz") for run in ("before", "after"))
            assert after.shape[:3] == truth.shape
            np.testing.assert_allclose(after.affine, truth.affine, atol=1e-4)
            np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
        assert after.shape[3] == 1 + len(labels)
        assert np.asarray(after.dataobj)[..., 1].std() > 0


def assert_metadata_are_of_the_task(package: Path, labels: dict[str, int]) -> None:
    metadata = json.loads((package / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == MODALITIES
    written = formats["post_processed_outputs"]["pred"]["channel_def"]
    assert {name: int(value) for value, name in written.items() if name in labels} == labels
    assert {f"Dice {name}" for name in labels} <= metadata["eval_metrics"].keys()
    for organ in ("liver", "stomach"):
        assert organ not in json.dumps(metadata).lower(), organ
    assert parser_of(package)["labels"] == labels
    assert metadata["data_source"] in (package / "docs" / "data_license.txt").read_text()


@pytest.mark.slow
def test_three_labels_in_two_modalities(taken: Callable[..., Path], write_nifti: Callable, tmp_path: Path) -> None:
    """Half of the scans are in LPS; no two have the same voxel size."""
    write_patients(write_nifti, tmp_path / "raw")
    listing = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    cases = [case for section in ("training", "validation", "test") for case in listing[section]]
    for number, case in enumerate(cases):
        for channel, image in enumerate(case["image"]):
            _place(tmp_path / "raw" / image, tmp_path / "data" / "imagesTr" / f"{case['case']}_{channel:04}.nii.gz")
            if number > 3:
                _place(
                    tmp_path / "raw" / image, tmp_path / "scans" / f"{case['case']}_{MODALITIES[str(channel)]}.nii.gz"
                )
        _place(tmp_path / "raw" / case["label"], tmp_path / "data" / "labelsTr" / f"{case['case']}.nii.gz")
        if number > 3:
            _place(tmp_path / "raw" / case["label"], tmp_path / "labels" / f"{case['case']}.nii.gz")
    description = {
        "channel_names": MODALITIES, "labels": {"background": 0, **LABELS}, "numTraining": 6, "file_ending": ".nii.gz",
    }  # fmt: skip
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description))

    package = taken(MPUNET, {"network_def::channels": [2, 2, 4, 4, 8], "roi_size": [24, 16, 16]})
    assert_same_results(tmp_path, LABELS)
    assert_metadata_are_of_the_task(package, LABELS)
    rows = read_scores(tmp_path / "runs" / "scores.csv")
    assert len({row["case"] for row in rows}) == len(rows) > 1
    assert {f"Dice {name}" for name in LABELS} <= rows[0].keys()


@pytest.mark.slow
def test_classes_of_cases(taken: Callable[..., Path], write_nifti: Callable, tmp_path: Path) -> None:
    data = write_patients(write_nifti, tmp_path / "data")
    listing = json.loads((data / "dataset.json").read_text())
    cases = [case for section in ("training", "validation", "test") for case in listing[section]]
    for number, case in enumerate(cases):
        case |= {"fold": number // 3, "order": number}
        if number > 3:
            for image, modality in zip(case["image"], MODALITIES.values()):
                _place(data / image, tmp_path / "scans" / f"{case['case']}_{modality}.nii.gz")
            _place(data / case["label"], tmp_path / "labels" / f"{case['case']}.nii.gz")
    (data / "dataset.json").write_text(json.dumps({"modality": MODALITIES, "labels": LABELS, "training": cases}))

    narrow = {f"network_def::{key}": value for key, value in NARROW_MAMTLN.items()}
    package = taken(MAMTLN_CT, {**narrow, "roi_size": [16, 16, 8]})
    assert_same_results(tmp_path, LABELS)
    assert_metadata_are_of_the_task(package, LABELS)
    assert [row["case"] for row in read_classes(tmp_path / "runs" / "classes.csv")] == [f"P{n}" for n in range(1, 7)]
    for case in ("P5", "P6"):
        before, after = (json.loads((tmp_path / run / f"{case}_class.json").read_text()) for run in ("before", "after"))
        assert after["probabilities"].keys() == {*CLASSES} and after["probabilities"] == before["probabilities"]


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
