"""Test that weights of every bundle carry the record of their training, and that it is used with them."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.data.listed_cases import read_lists
from common.errors import InputError, root_cause
from common.packaging import pack_bundle
from common.record import RECORD_FILE, read_record

from ..conftest import BUNDLES
from ..methods.mpunet.tiny import MPUNET
from ..methods.omnet.tiny import OMNET
from ..warm_python import WarmPython

bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(kept: Path, workflow: Callable) -> Callable[[Path], Path]:
    """Return the weights of a bundle that was trained on the tiny cohort with the tiny overlay."""

    def train(bundle: Path) -> Path:
        folder = kept / bundle.name
        if not folder.exists():
            workflow(bundle, "train", ckpt_dir=str(folder)).run()
        return folder / "model.pt"

    return train


@pytest.fixture
def plain(workflow: Callable, tmp_path: Path) -> Callable[..., ConfigWorkflow]:
    """Make a workflow of a bundle's configs alone, without the tiny overlay of the training."""
    return functools.partial(workflow, tiny=False, output_dir=str(tmp_path / "plain"))


def refusal(run: Callable[[], Any]) -> str:
    with pytest.raises((InputError, RuntimeError)) as caught:
        run()
    cause = root_cause(caught.value)
    assert isinstance(cause, InputError)
    return str(cause)


@bundles
def test_record_holds_settings_and_cases(bundle: Path, trained: Callable, cohort: Callable) -> None:
    record = read_record(trained(bundle).parent / RECORD_FILE)
    lists = read_lists(cohort(bundle))
    for key, section in (("train_cases", "training"), ("validation_cases", "validation"), ("test_cases", "test")):
        assert len(getattr(record, key)) == len(lists[section])
        assert all(len(case["image"]) == 64 and len(case["label"]) == 64 for case in getattr(record, key))
    config = json.loads((bundle / "configs" / "train.json").read_text())
    assert list(record.settings) == config["recorded"]
    assert record.settings["network_def"]["_target_"] == config["network_def"]["_target_"]
    text = (trained(bundle).parent / RECORD_FILE).read_text()
    assert str(cohort(bundle)) not in text and str(bundle) not in text


@bundles
def test_plain_configs_follow_the_record(
    bundle: Path, trained: Callable, workflow: Callable, plain: Callable, tmp_path: Path
) -> None:
    weights = str(trained(bundle))
    workflow(bundle, "inference", weights=weights, ckpt_dir=str(Path(weights).parent)).run()
    plain(bundle, "inference", weights=weights).run()
    masks = sorted((tmp_path / "out").glob("*_seg.nii.gz"))
    assert masks
    for mask in masks:
        other = nib.load(tmp_path / "plain" / mask.name)
        assert np.array_equal(np.asarray(nib.load(mask).dataobj), np.asarray(other.dataobj))
    flow = plain(bundle, "train", "evaluate", weights=weights)
    flow.run()
    assert (tmp_path / "plain" / "scores.csv").read_text().count("\n") == 1 + len(masks)


@bundles
def test_setting_against_the_record_is_refused(bundle: Path, trained: Callable, plain: Callable) -> None:
    weights = trained(bundle)
    recorded = read_record(weights.parent / RECORD_FILE).settings["roi_size"]
    for names in (("inference",), ("train", "evaluate")):
        text = refusal(lambda names=names: plain(bundle, *names, weights=str(weights), roi_size=[80, 80, 40]))
        assert "roi_size: [80, 80, 40]" in text and json.dumps(recorded) in text and RECORD_FILE in text
    text = refusal(
        lambda: plain(bundle, "inference", weights=str(weights), **{"network_def::norm": "of another network"})
    )
    assert "network_def::norm" in text and "not set in the record" in text


def test_ensemble_follows_the_records_of_its_members(
    trained: Callable, workflow: Callable, plain: Callable, tmp_path: Path
) -> None:
    weights = trained(OMNET)
    workflow(OMNET, "inference", weights=str(weights)).run()
    members = [str(weights), str(weights)]
    plain(OMNET, "inference", "ensemble", weights=members).run()
    for mask in (tmp_path / "out").glob("*_seg.nii.gz"):
        other = nib.load(tmp_path / "plain" / mask.name)
        assert np.array_equal(np.asarray(nib.load(mask).dataobj), np.asarray(other.dataobj))
    text = refusal(lambda: plain(OMNET, "inference", "ensemble", weights=members, **{"member::channels": [3, 3]}))
    assert "member::channels: [3, 3] here" in text


def test_edited_value_out_of_range_is_refused(trained: Callable, plain: Callable, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained(MPUNET).parent, tmp_path / "edited"))
    record = json.loads((folder / RECORD_FILE).read_text())
    record["settings"]["slice_step"] = 0
    (folder / RECORD_FILE).write_text(json.dumps(record))
    text = refusal(lambda: plain(MPUNET, "inference", weights=str(folder / "model.pt")))
    assert str(folder / RECORD_FILE) in text and "slice_step is 0; expected a whole number of at least 1" in text


@pytest.mark.parametrize("value", [{"lesion": 1}, {"liver": 2}])
def test_other_labels_than_recorded_are_refused(trained: Callable, plain: Callable, value: dict) -> None:
    text = refusal(lambda: plain(MPUNET, "inference", weights=str(trained(MPUNET)), labels=value))
    assert text.startswith("labels")


def test_cases_that_were_seen_are_refused(trained: Callable, plain: Callable, caplog: pytest.LogCaptureFixture) -> None:
    weights = str(trained(MPUNET))
    flow = plain(MPUNET, "train", "evaluate", weights=weights, section="training")
    assert "case_000 in train_cases" in refusal(flow.run)
    flow = plain(MPUNET, "train", "evaluate", weights=weights, section="validation")
    assert "in validation_cases" in refusal(flow.run)
    flow = plain(MPUNET, "train", "evaluate", weights=weights, section="training", allow_seen_cases=True)
    with caplog.at_level(logging.WARNING):
        flow.run()
    assert "were seen in training" in caplog.text


def test_seen_scan_is_known_under_another_name(
    trained: Callable, plain: Callable, cohort: Callable, tmp_path: Path
) -> None:
    first = read_lists(cohort(MPUNET))["training"][0]
    data = tmp_path / "renamed"
    data.mkdir()
    for key in ("image", "label"):
        shutil.copy(cohort(MPUNET) / first[key], data / f"{key}.nii.gz")
    (data / "dataset.json").write_text(json.dumps({"test": [{"image": "image.nii.gz", "label": "label.nii.gz"}]}))
    flow = plain(MPUNET, "train", "evaluate", weights=str(trained(MPUNET)), dataset_dir=str(data))
    assert "image in train_cases" in refusal(flow.run)


def with_folds(source: Path, folder: Path) -> Path:
    """Copy a cohort with two folds, and two cases of one patient."""
    shutil.copytree(source, folder)
    lists = read_lists(source)
    cases = [case for section in ("training", "validation", "test") for case in lists[section]]
    for place, case in enumerate(cases):
        case.update(fold=place % 2, order=place, case=f"scan{place}")
    (folder / "dataset.json").write_text(json.dumps({"training": cases}))
    return folder


def test_fold_follows_the_record(workflow: Callable, plain: Callable, cohort: Callable, tmp_path: Path) -> None:
    data = str(with_folds(cohort(MPUNET), tmp_path / "folds"))
    workflow(MPUNET, "train", dataset_dir=data, fold=1).run()
    weights = str(tmp_path / "models" / "model.pt")
    plain(MPUNET, "train", "evaluate", weights=weights, dataset_dir=data).run()
    rows = (tmp_path / "plain" / "scores.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["scan1", "scan3", "scan5"]
    assert "fold: 0 here, 1 in" in refusal(
        lambda: plain(MPUNET, "train", "evaluate", weights=weights, dataset_dir=data, fold=0)
    )
    text = refusal(lambda: workflow(MPUNET, "train", dataset_dir=data, fold=0, resume=True).run())
    assert "fold: 0 here, 1 in" in text


def test_patient_who_was_seen_is_refused(workflow: Callable, plain: Callable, cohort: Callable, tmp_path: Path) -> None:
    data = tmp_path / "patients"
    shutil.copytree(cohort(MPUNET), data)
    lists = read_lists(data)
    for section in ("training", "validation", "test"):
        for place, case in enumerate(lists[section]):
            case["patient"] = "P0" if place == 0 and section != "validation" else f"{section}{place}"
    (data / "dataset.json").write_text(json.dumps(lists))
    workflow(MPUNET, "train", dataset_dir=str(data)).run()
    flow = plain(MPUNET, "train", "evaluate", weights=str(tmp_path / "models" / "model.pt"), dataset_dir=str(data))
    assert "the same patient, P0" in refusal(flow.run)


def test_weights_without_a_record_load_with_a_warning(
    trained: Callable, workflow: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(trained(MPUNET), tmp_path / "alone.pt")
    with caplog.at_level(logging.WARNING):
        workflow(MPUNET, "inference", weights=str(tmp_path / "alone.pt")).run()
    assert f"alone.pt has no {RECORD_FILE} beside it" in caplog.text
    assert list((tmp_path / "out").glob("*_seg.nii.gz"))


@pytest.mark.slow
@pytest.mark.usefixtures("warm_packing")
def test_package_has_settings_and_record_of_its_weights(
    trained: Callable, workflow: Callable, cohort: Callable, warm_python: WarmPython, tmp_path: Path
) -> None:
    weights = trained(MPUNET)
    pack_bundle(MPUNET, weights, tmp_path / "dist")
    package = tmp_path / "dist" / MPUNET.name
    assert (package / "models" / RECORD_FILE).read_bytes() == (weights.parent / RECORD_FILE).read_bytes()
    packed = json.loads((package / "configs" / "inference.json").read_text())
    recorded = read_record(weights.parent / RECORD_FILE).settings
    for key in ("in_plane", "slice_thickness", "roi_size", "slice_step"):
        assert packed[key] == recorded[key]
    assert packed["network_def"]["channels"] == recorded["network_def"]["channels"]
    workflow(MPUNET, "inference", weights=str(weights)).run()
    options = {"config_file": package / "configs" / "inference.json", "dataset_dir": cohort(MPUNET)}
    options["output_dir"] = tmp_path / "packed"
    command = [sys.executable, "-m", "monai.bundle", "run", *(f"--{key}={value}" for key, value in options.items())]
    warm_python.run(command, tmp_path, check=True)
    for mask in (tmp_path / "out").glob("*_seg.nii.gz"):
        assert mask.read_bytes() == (tmp_path / "packed" / mask.name).read_bytes()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("validation", "the validation case copy, with the same image as "),
        ("test", "the test case copy, with the same"),
    ],
)
def test_a_training_finds_a_case_in_two_lists(
    workflow: Callable, cohort: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture, section: str, message: str
) -> None:
    shutil.copytree(cohort(MPUNET), tmp_path / "data")
    file = tmp_path / "data" / "dataset.json"
    listing = json.loads(file.read_text())
    shutil.copy(tmp_path / "data" / listing["training"][0]["image"], tmp_path / "data" / "copy.nii.gz")
    listing[section].append({**listing["training"][0], "case": "copy", "image": "copy.nii.gz"})
    file.write_text(json.dumps(listing))
    run = workflow(MPUNET, "train", dataset_dir=str(tmp_path / "data")).run
    if section == "validation":
        assert refusal(run).startswith(message)
    else:
        run()
        assert message in caplog.text


def test_overlay_against_the_record_is_not_packed(trained: Callable, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"in_plane": 48}))
    with pytest.raises(InputError, match="in_plane: 48 here, 32 in the record"):
        pack_bundle(MPUNET, trained(MPUNET), tmp_path / "dist", tmp_path / "other.json")
    assert not list(tmp_path.glob("dist/*"))


def test_training_without_validation_keeps_its_last_weights(workflow: Callable, tmp_path: Path) -> None:
    workflow(MPUNET, "train", validation_share=0.0).run()
    folder = tmp_path / "models"
    state = torch.load(folder / "training_state.pt", weights_only=True)
    weights = torch.load(folder / "model.pt", weights_only=True)
    assert state["epoch"] == 2
    assert all(torch.equal(weights[key], value) for key, value in state["network"].items())
    assert read_record(folder / RECORD_FILE).validation_cases == []
