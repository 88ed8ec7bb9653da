"""Take another task from plan and cross-validation to an ensemble, a package and its inference elsewhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from fire.parser import DefaultParseValue
from monai.bundle import run

from common.child import Ended
from common.crossval import cross_validate
from common.labels import channel_def
from common.packaging import pack_bundle
from common.planning import plan_training, write_plan
from common.reporting import read_classes, read_scores
from common.typed_texts import command_line_texts

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mamtln.tiny import TINY as MAMTLN
from ..methods.mpunet.tiny import MPUNET
from ..methods.mpunet.tiny import TINY as MPU
from ..warm_python import WarmPython

LABELS = {"core": 1, "rim": 2, "cyst": 5}
CHANNELS = {"0": "T1", "1": "T2"}
CASES = [f"case_{number:02}" for number in range(10)]
CLASSES = ["healthy", "mild", "severe"]
SHORT = {"max_epochs": "1", "updates_per_epoch": "3", "learning_rate": "0.02", "val_interval": "1", "device": "cpu"}
RUN_PACKAGE = (
    "import json, sys; sys.modules['common'] = None; from monai.bundle import run; run(**json.loads(sys.argv[1]))"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:parsing config_file")]  # MONAI's, of any config


def write_data_set(folder: Path, classes: bool) -> Path:
    """Write ten cases of odd spacings, half in LPS, in nnU-Net's form or, with classes, as a list of 5 folds."""
    rng, listed = np.random.default_rng(0), []
    for number, name in enumerate(CASES):
        label = np.zeros((13 + number % 3, 11, 9), np.uint8)
        label[2:6, 2:6, 2:6], label[6:9, 2:6, 2:6], label[2:6, 6:9, 2:6] = 1, 2, 5
        sign = -1 if number % 2 else 1
        affine = np.diag([sign * (1.1 + 0.01 * number), sign * 0.93, 2.3, 1])
        affine[:3, 3] = [sign * 9, -7, 5]
        images = [f"imagesTr/{name}_{channel:04}.nii.gz" for channel in range(2)]
        for image in images:
            values = rng.normal(100, 20, label.shape) + 50 * label
            _save(values.astype(np.float32), affine, folder / image)
        _save(label, affine, folder / "labelsTr" / f"{name}.nii.gz")
        case = {"case": name, "image": images, "label": f"labelsTr/{name}.nii.gz", "class": CLASSES[number % 3]}
        listed.append({**case, "fold": number % 5, "order": number})
    description: dict[str, Any] = {"channel_names": CHANNELS, "labels": {"background": 0, **LABELS}}
    nnunet = {"numTraining": len(CASES), "file_ending": ".nii.gz"}
    description |= {"training": listed} if classes else nnunet
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def infer_by_package(python: WarmPython, package: Path, elsewhere: Path, **settings: Any) -> None:
    """Infer by a package in a process of its own, in which this repository cannot be imported."""
    elsewhere.mkdir()
    files = {"config_file": f"{package}/configs/inference.json", "meta_file": f"{package}/configs/metadata.json"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # else sums have another order
    options = json.dumps({**files, "bundle_root": str(package), **settings})
    done = python.run([sys.executable, "-c", RUN_PACKAGE, options], elsewhere, environment)
    assert done.returncode == 0, done.stderr


def run_here(command: Sequence[str]) -> Ended:
    """Run the training or evaluation of a fold in this process, where nothing has to be imported again."""
    assert command[1:4] == ["-m", "monai.bundle", "run"]
    options = {name: DefaultParseValue(text) for name, text in command_line_texts(command[4:]).items()}
    run(**options, logging_file=False, workflow_type="train")
    return Ended(0, "")


@pytest.fixture
def whole_path(
    workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: WarmPython
) -> Callable[..., tuple[Path, Path, Path]]:
    """Take a bundle through the whole path; return the results of the ensemble and of the package, and the package."""
    monkeypatch.setattr("common.crossval.run.run_child", run_here)

    def take(bundle: Path, data: Path, narrow: dict[str, Any]) -> tuple[Path, Path, Path]:
        (tmp_path / "narrow.json").write_text(json.dumps(narrow))
        plan, runs = tmp_path / "plan.json", tmp_path / "runs"
        write_plan(plan_training(bundle, data, hours=0.01, fold=0, overlay=tmp_path / "narrow.json"), plan)
        cross_validate(bundle, data, runs, [plan], folds=[0, 1], options=SHORT)
        inference = {"dataset_dir": str(data / "imagesTr"), "limit": 2, "probabilities": True, "device": "cpu"}
        names = ["inference", str(plan.with_suffix("")), str(runs / "ensemble")]
        by_ensemble, by_package = tmp_path / "ensemble", tmp_path / "package"
        workflow(bundle, *names, tiny=False, ckpt_dir=str(runs), output_dir=str(by_ensemble), **inference).run()
        with warm_python.in_packing():
            pack_bundle(bundle, runs / "model.pt", tmp_path / "dist", plan, runs)
        package = tmp_path / "dist" / bundle.name
        infer_by_package(warm_python, package, tmp_path / "elsewhere", output_dir=str(by_package), **inference)
        return by_ensemble, by_package, package

    return take


def narrow_network(overlay: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overlay.items() if key.startswith("network_def::")}


def assert_equal_results(ensemble: Path, package: Path, data: Path, cases: Sequence[str]) -> None:
    assert sorted(path.name for path in package.glob("*_seg.nii.gz")) == [f"{case}_seg.nii.gz" for case in cases]
    for case in cases:
        for kind in ("seg", "prob"):
            expected, found = (nib.load(folder / f"{case}_{kind}.nii.gz") for folder in (ensemble, package))
            np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
        scan, mask = nib.load(data / "imagesTr" / f"{case}_0000.nii.gz"), nib.load(package / f"{case}_seg.nii.gz")
        assert mask.shape == scan.shape
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
        assert {*np.unique(mask.dataobj)} <= {0, *LABELS.values()}


def test_three_labels_and_two_modalities_to_a_package(whole_path: Callable, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", classes=False)
    ensemble, package, folder = whole_path(MPUNET, data, narrow_network(dict(MPU.overlay)))
    assert_equal_results(ensemble, package, data, CASES[:2])
    rows = read_scores(tmp_path / "runs" / "scores.csv")
    tested = [row["case"] for fold in (0, 1) for row in read_scores(tmp_path / f"runs/fold{fold}/scores/scores.csv")]
    assert sorted(row["case"] for row in rows) == sorted(tested) and len({*tested}) == len(tested) == 4
    assert all({f"Dice {name}" for name in LABELS} <= {*row} for row in rows)
    text = (folder / "configs" / "metadata.json").read_text()
    metadata = json.loads(text)
    # the name of the bundle itself stays, as does the name of its package of code
    assert "liver" not in text.replace(MPUNET.name, "").lower()
    assert metadata["data_source"] in (folder / "docs" / "data_license.txt").read_text()
    formats = metadata["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == CHANNELS
    assert formats["inputs"]["image"]["format"] == "magnitude"
    written = channel_def(LABELS)
    assert formats["post_processed_outputs"]["pred"]["channel_def"] == written
    used = {value: name for value, name in written.items() if name != "unused"}
    assert formats["outputs"]["pred"]["channel_def"] == used  # MONAI Label lists these names


def test_classes_of_cases_to_a_package(whole_path: Callable, tmp_path: Path) -> None:
    data = write_data_set(tmp_path / "data", classes=True)
    ensemble, package, _ = whole_path(MAMTLN_CT, data, narrow_network(dict(MAMTLN.overlay)))
    assert_equal_results(ensemble, package, data, CASES[:2])
    for case in CASES[:2]:
        expected, found = (json.loads((path / f"{case}_class.json").read_text()) for path in (ensemble, package))
        assert found == expected and [*found["probabilities"]] == CLASSES
    classes = read_classes(tmp_path / "runs" / "classes.csv")
    assert sorted(row["case"] for row in classes) == ["case_00", "case_01", "case_05", "case_06"]
