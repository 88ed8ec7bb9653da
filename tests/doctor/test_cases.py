"""Test that each error that would fail in a run is found."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.doctor import Findings, examine_data
from common.errors import InputError
from common.memory import Memory
from common.packaging.code import code_of
from common.packaging.configs import Rewriting

COMMON = Path(__file__).parents[2] / "common"


@pytest.fixture
def examine(bundle: Path, tmp_path: Path, listing: dict) -> Callable[..., list[tuple[str, str, str]]]:
    def run(**options: Any) -> list[tuple[str, str, str]]:
        (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
        findings = Findings()
        run.findings = findings  # type: ignore[attr-defined]
        findings.lines = examine_data(findings, bundle, tmp_path / "data", **options)  # type: ignore[attr-defined]
        return [tuple(finding) for finding in findings.found]  # type: ignore[misc]

    return run


@pytest.mark.parametrize("headers_only", [False, True])
def test_good_data_set_has_no_finding(examine: Callable, headers_only: bool) -> None:
    assert examine(headers_only=headers_only) == []


def test_missing_file_is_a_failure(examine: Callable, tmp_path: Path) -> None:
    (tmp_path / "data" / "test_T2.nii.gz").unlink()
    (tmp_path / "data" / "training_gtv.nii.gz").unlink()
    found = examine()
    assert [(kind, where) for kind, where, _ in found] == [("failure", "training t"), ("failure", "test t")]
    assert "training_gtv.nii.gz: no such file" in found[0][2] and "test_T2.nii.gz: no such file" in found[1][2]


def test_wrong_label_value_is_found_in_the_voxels(examine: Callable, write_nifti: Callable) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[3, 3, 3] = 7
    write_nifti("data/training_gtv.nii.gz", label)
    ((kind, where, what),) = examine()
    assert (kind, where) == ("failure", "training t") and "values 0, 7, expected 0 and 1, 2" in what
    assert examine(headers_only=True) == []


@pytest.mark.parametrize("headers_only", [False, True])
def test_unknown_class_is_a_failure(examine: Callable, listing: dict, headers_only: bool) -> None:
    listing["validation"][0]["class"] = "maybe"
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "validation v") and "'maybe', expected one of no (0), yes (1)" in what


@pytest.mark.parametrize("headers_only", [False, True])
def test_swapped_modalities_are_a_failure(examine: Callable, listing: dict, headers_only: bool) -> None:
    listing["test"][0]["image"].reverse()
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "test t")
    assert "image test_T2.nii.gz, test_T1.nii.gz; expected the files of T1, T2 in this order" in what


def test_one_name_of_another_modality_is_a_note(examine: Callable, listing: dict, tmp_path: Path) -> None:
    (tmp_path / "data" / "test_T2.nii.gz").rename(tmp_path / "data" / "test_T2_on_T1.nii.gz")
    listing["test"][0]["image"][1] = "test_T2_on_T1.nii.gz"
    assert [(kind, where) for kind, where, _ in examine()] == [("note", "test t")]


def test_other_modalities_in_the_list_are_refused(examine: Callable, listing: dict) -> None:
    listing["modality"] = {"0": "T2", "1": "T1"}
    with pytest.raises(InputError, match="modalities T2, T1, expected T1, T2 in this order"):
        examine()


@pytest.mark.parametrize("headers_only", [False, True])
def test_label_on_another_grid_is_a_failure(examine: Callable, write_nifti: Callable, headers_only: bool) -> None:
    write_nifti("data/training_gtv.nii.gz", np.ones((12, 10, 6), np.uint8), np.diag([1.5, 0.75, 3.0, 1.0]))
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "training t") and "resample it onto the image" in what


@pytest.mark.parametrize("headers_only", [False, True])
@pytest.mark.parametrize(("shift", "same"), [(0.37, True), (0.38, False)])
def test_label_may_lie_half_a_voxel_away(
    examine: Callable, write_nifti: Callable, headers_only: bool, shift: float, same: bool
) -> None:
    affine = np.diag([1.5, 0.75, 4.0, 1.0])
    affine[1, 3] = shift
    write_nifti("data/training_gtv.nii.gz", np.ones((12, 10, 6), np.uint8), affine)
    found = examine(headers_only=headers_only)
    assert [kind for kind, *_ in found] == ([] if same else ["failure"])
    assert same or "a corner lies 0.38 mm (0.507 voxels) away" in found[0][2]


def test_label_lost_by_resampling_is_a_note(examine: Callable, write_nifti: Callable) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[1, 1, 1], label[3:9, 3:9, 2] = 1, 2  # voxels of 2 mm have their centres elsewhere
    write_nifti("data/training_gtv.nii.gz", label)
    small, lost = examine()
    assert small[:2] == lost[:2] == ("note", "training t")
    assert "label 1 has only 1 voxels" in small[2]
    assert "label 1 (1 voxels) is lost on the network's grid" in lost[2]


@pytest.mark.parametrize("headers_only", [False, True])
def test_modality_on_another_grid_is_a_note(examine: Callable, write_nifti: Callable, headers_only: bool) -> None:
    image = np.random.default_rng(1).random((12, 10, 6), np.float32)
    half = np.diag([1.5, 0.75, 4.0, 1.0])
    half[0, 3] = 9.0
    write_nifti("data/training_T2.nii.gz", image, half)
    far = np.diag([1.5, 0.75, 4.0, 1.0])
    far[0, 3] = 500.0
    write_nifti("data/test_T2.nii.gz", image, far)
    first, second = examine(headers_only=headers_only)
    assert first[:2] == ("note", "training t") and "50" in first[2] and "grid" in first[2]
    assert second[:2] == ("failure", "test t") and "test_T2.nii.gz" in second[2]


def test_wrong_number_of_channels_is_a_failure(examine: Callable, listing: dict) -> None:
    listing["test"][0]["image"] = "test_T1.nii.gz"
    for headers_only in (False, True):
        ((kind, where, what),) = examine(headers_only=headers_only)
        assert (kind, where) == ("failure", "test t") and "T1, T2" in what


def test_damaged_file_is_a_failure(examine: Callable, tmp_path: Path) -> None:
    file = tmp_path / "data" / "training_T1.nii.gz"
    file.write_bytes(file.read_bytes()[:1500])  # its header is whole
    ((kind, where, what),) = examine()
    assert (kind, where) == ("failure", "training t") and "not a complete NIfTI file" in what
    assert examine(headers_only=True) == []
    file.write_bytes(b"no gzip")
    ((kind, where, what),) = examine(headers_only=True)
    assert (kind, where) == ("failure", "training t") and "not a NIfTI file" in what


def test_case_larger_than_the_memory_is_a_failure(
    examine: Callable, write_nifti: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.memory.main_memory", lambda: Memory(3_000_000_000, 3_000_000_000))
    wide, shape = np.diag([100.0, 100.0, 4.0, 1.0]), (170, 170, 6)
    for seed, name in enumerate(("T1", "T2")):
        write_nifti(f"data/test_{name}.nii.gz", np.random.default_rng(seed).random(shape, np.float32), wide)
    write_nifti("data/test_gtv.nii.gz", np.ones(shape, np.uint8), wide)
    ((kind, where, what),) = examine()
    assert (kind, where) == ("failure", "test t") and "test_gtv.nii.gz: resampling 170 x 170 x 6 voxels of 100" in what
    assert "3.0 GB" in what
    assert examine.findings.lines[-1].startswith("inference of the largest case: about")  # type: ignore[attr-defined]


def test_internal_error_is_one_line_with_a_logged_traceback(
    examine: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("common.doctor.cases.read_header", lambda path: {}["gone"])
    found = examine()
    assert len(found) == 3 and all("internal error (KeyError: 'gone')" in what for _, _, what in found)
    assert "Traceback" in caplog.text


def test_patient_on_two_lists_is_a_failure(examine: Callable, listing: dict) -> None:
    for section in ("training", "test"):
        listing[section][0]["patient"] = "A"
    listing["validation"][0]["patient"] = "B"
    ((kind, where, what),) = examine(headers_only=True)
    assert (kind, where) == ("failure", "patient A") and "t (training), t (test)" in what


def test_file_on_two_lists_is_a_failure(examine: Callable, listing: dict) -> None:
    listing["validation"][0]["image"] = listing["training"][0]["image"]
    found = examine(headers_only=True)
    assert [kind for kind, *_ in found] == ["failure", "failure"]
    assert "in training t and validation v" in found[0][2]


def test_copy_under_another_name_is_a_failure(examine: Callable, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "data" / "training_T1.nii.gz", tmp_path / "data" / "test_T1.nii.gz")
    ((kind, _, what),) = examine()
    assert kind == "failure" and "files with the same content, training_T1.nii.gz, test_T1.nii.gz" in what
    assert examine(headers_only=True) == []


def test_file_for_two_modalities_is_a_failure(examine: Callable, listing: dict) -> None:
    listing["test"][0]["image"] = ["test_T2.nii.gz", "test_T2.nii.gz"]
    assert [found[:2] for found in examine(headers_only=True) if found[0] == "failure"] == [("failure", "test t")]


def test_list_without_cases_is_a_note(examine: Callable, listing: dict) -> None:
    del listing["test"]
    ((kind, where, _),) = examine(headers_only=True)
    assert (kind, where) == ("note", "list test")


def test_fold_needs_its_keys_in_the_list(examine: Callable, listing: dict) -> None:
    with pytest.raises(InputError, match="--fold 0, but its cases have no fold"):
        examine(fold=0)
    for order, section in enumerate(("training", "validation", "test")):
        listing[section][0].update(fold=order, order=order)
    assert examine(fold=2, headers_only=True) == []
    del listing["test"][0]["order"]
    with pytest.raises(InputError, match="--fold 2, but its cases have no order"):
        examine(fold=2)
    listing["test"] = [None]
    with pytest.raises(InputError, match="--fold 2, but its cases have no fold"):
        examine(fold=2)


@pytest.mark.parametrize(
    "item, what",
    [
        (None, "case None: expected an object"),
        (3, "case 3: expected an object"),
        ({"label": "test_gtv.nii.gz"}, "has no image"),
        ({"image": ["test_T1.nii.gz", "test_T2.nii.gz"]}, "has no label"),
        ({"image": ["test_T1.nii.gz", "test_T2.nii.gz"], "label": None}, "label is None; expected a path"),
        ({"image": [], "label": "test_gtv.nii.gz"}, r"image is \[\]; expected a path"),
        ({"image": 3, "label": "test_gtv.nii.gz"}, "image is 3; expected a path"),
        ({"image": ["test_T1.nii.gz", None], "label": "test_gtv.nii.gz"}, "image is .* expected a path"),
    ],
)
def test_malformed_case_leaves_the_others(examine: Callable, listing: dict, item: Any, what: str) -> None:
    listing["test"].insert(0, item)
    listing["validation"][0]["class"] = "maybe"
    (first, second) = examine(headers_only=True)
    assert first[:2] == ("failure", "test item 1") and re.search(what, first[2])
    assert second[:2] == ("failure", "validation v")


@pytest.mark.parametrize(
    "change, what",
    [
        ({"training": {"a": 1}}, "expected an object with the lists"),
        ({"training": [], "validation": None, "test": []}, "no cases under any of training, validation, test"),
    ],
)
def test_data_list_without_cases_is_refused(examine: Callable, listing: dict, change: dict, what: str) -> None:
    listing.update(change)
    with pytest.raises(InputError, match=what):
        examine()


@pytest.mark.parametrize("headers_only", [False, True])
def test_header_without_an_affine_is_a_failure(examine: Callable, tmp_path: Path, headers_only: bool) -> None:
    path = tmp_path / "data" / "test_T2.nii.gz"
    image = nib.Nifti1Image(np.random.default_rng(2).random((12, 10, 6), np.float32), None)
    image.header["sform_code"] = 1  # of zeros
    nib.save(image, path)
    assert not nib.load(path).affine[:3].any()
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "test t") and "is not finite and invertible" in what
    lines = examine.findings.lines  # type: ignore[attr-defined]
    assert any(line.startswith("inference of the largest case: about") for line in lines)


def test_estimate_leaves_out_cases_with_a_failure(examine: Callable, write_nifti: Callable) -> None:
    def lines(start: str) -> list[str]:
        return [line for line in examine.findings.lines if line.startswith(start)]  # type: ignore[attr-defined]

    examine(headers_only=True)
    assert "caching 2 cases" in lines("caching")[0]
    write_nifti("data/training_gtv.nii.gz", np.ones((40, 10, 6), np.uint8))
    examine(headers_only=True)
    assert "caching 1 cases" in lines("caching")[0]


def test_failed_estimate_is_a_line_without_a_finding(examine: Callable, bundle: Path) -> None:
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["inferer"]["roi_size"] = [0, 8, 4]
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))
    assert examine(headers_only=True) == []
    lines = examine.findings.lines  # type: ignore[attr-defined]
    assert lines[-1].startswith("inference: not estimated") and lines[-2].startswith("caching 2 cases")


def test_code_of_a_package_gives_the_same_findings(
    examine: Callable, bundle: Path, listing: dict, write_nifti: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report the package's own ``InputError`` and log messages as those of this code."""
    package = "two_of_three_v0"
    configs = {name: json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in ("inference", "train")}
    rewriting = Rewriting(configs, "common", package)
    for file, source in code_of(COMMON, rewriting.names).items():
        (bundle / package / file).parent.mkdir(parents=True, exist_ok=True)
        (bundle / package / file).write_text(source)
    for name, config in configs.items():
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(rewriting({"imports": [], **config})))
    monkeypatch.setattr(sys, "path", list(sys.path))  # the configs add the bundle's folder
    importlib.invalidate_caches()
    listing["validation"][0]["class"] = "maybe"
    far = np.diag([1.5, 0.75, 4.0, 1.0])
    far[0, 3] = 9.0
    write_nifti("data/test_T2.nii.gz", np.random.default_rng(1).random((12, 10, 6), np.float32), far)
    try:
        wrong, resampled = examine()
        assert f"{package}.data.volumes" in sys.modules
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
    assert wrong[:2] == ("failure", "validation v") and "Error:" not in wrong[2]
    assert resampled[:2] == ("note", "test t") and "grid" in resampled[2]


def test_folder_of_scans_is_examined(bundle: Path, tmp_path: Path, listing: dict) -> None:
    findings = Findings()
    (tmp_path / "data" / "test_T2.nii.gz").unlink()  # what is left is taken to hold both
    for file in (tmp_path / "data").glob("*gtv*"):
        file.unlink()
    lines = examine_data(findings, bundle, tmp_path / "data")
    assert "cases: 3 scans" in lines
    ((kind, where, what),) = findings.found
    assert (kind, where) == ("failure", "scans test") and "T1, T2" in what


def test_nnunet_folders_without_a_list_are_examined(bundle: Path, write_nifti: Callable, tmp_path: Path) -> None:
    for number in range(5):
        image = np.random.default_rng(number).normal(size=(8, 8, 4)).astype(np.float32)
        for channel in range(2):
            write_nifti(f"organ/imagesTr/c{number}_000{channel}.nii.gz", image + channel)
        write_nifti(f"organ/labelsTr/c{number}.nii.gz", (image > 1).astype(np.uint8))
    lines = examine_data(Findings(), bundle, tmp_path / "organ", fold=0)
    assert "cases: 3 training, 1 validation, 1 test" in lines


@pytest.mark.parametrize("section", ["training", "validation", "test"])
def test_list_of_empty_labels_is_found(examine: Callable, write_nifti: Callable, section: str) -> None:
    write_nifti(f"data/{section}_gtv.nii.gz", np.zeros((12, 10, 6), np.uint8))
    kind = "note" if section == "test" else "failure"
    message = "the labels of all 1 cases are empty; check the labels and the data list"
    assert examine() == [(kind, f"list {section}", message)]
    assert examine(headers_only=True) == []


@pytest.mark.parametrize("count", [1, 3, 9, 10])
def test_label_of_a_few_voxels_is_a_note(examine: Callable, write_nifti: Callable, count: int) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[:5] = 1
    label[10, :count, 3] = 2
    write_nifti("data/training_gtv.nii.gz", label)
    found = [(kind, where) for kind, where, what in examine() if f"label 2 has only {count} voxels" in what]
    assert found == ([("note", "training t")] if count < 10 else [])
