"""Cases that would fail later, each spoilt in one way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.doctor import Findings, examine_data
from common.errors import InputError


@pytest.fixture
def examine(bundle: Path, tmp_path: Path, listing: dict) -> Callable[..., list[tuple[str, str, str]]]:
    def run(**options: Any) -> list[tuple[str, str, str]]:
        (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
        findings = Findings()
        findings.lines = examine_data(findings, bundle, tmp_path / "data", **options)  # type: ignore[attr-defined]
        return [tuple(finding) for finding in findings.found]  # type: ignore[misc]

    return run


@pytest.mark.parametrize("headers_only", [False, True])
def test_a_good_data_set_has_no_finding(examine: Callable, headers_only: bool) -> None:
    assert examine(headers_only=headers_only) == []


def test_missing_file(examine: Callable, tmp_path: Path) -> None:
    (tmp_path / "data" / "test_T2.nii.gz").unlink()
    (tmp_path / "data" / "training_gtv.nii.gz").unlink()
    found = examine()
    assert [(kind, where) for kind, where, _ in found] == [("failure", "training t"), ("failure", "test t")]
    assert "training_gtv.nii.gz: no such file" in found[0][2] and "test_T2.nii.gz: no such file" in found[1][2]


def test_wrong_label_value_needs_voxels(examine: Callable, write_nifti: Callable) -> None:
    label = np.zeros((12, 10, 6), np.uint8)
    label[3, 3, 3] = 7
    write_nifti("data/training_gtv.nii.gz", label)
    ((kind, where, what),) = examine()
    assert (kind, where) == ("failure", "training t") and "values 0, 7, expected 0 and 1, 2" in what
    assert examine(headers_only=True) == []


@pytest.mark.parametrize("headers_only", [False, True])
def test_unknown_class(examine: Callable, listing: dict, headers_only: bool) -> None:
    listing["validation"][0]["class"] = "maybe"
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "validation v") and "'maybe', expected one of no (0), yes (1)" in what


@pytest.mark.parametrize("headers_only", [False, True])
def test_swapped_modalities(examine: Callable, listing: dict, headers_only: bool) -> None:
    listing["test"][0]["image"].reverse()
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "test t")
    assert "test_T2.nii.gz, test_T1.nii.gz where T1, T2 are expected" in what


def test_one_name_of_another_modality_is_a_note(examine: Callable, listing: dict, tmp_path: Path) -> None:
    (tmp_path / "data" / "test_T2.nii.gz").rename(tmp_path / "data" / "test_T2_on_T1.nii.gz")
    listing["test"][0]["image"][1] = "test_T2_on_T1.nii.gz"
    assert [(kind, where) for kind, where, _ in examine()] == [("note", "test t")]


def test_the_list_names_other_modalities(examine: Callable, listing: dict) -> None:
    listing["modality"] = {"0": "T2", "1": "T1"}
    with pytest.raises(InputError, match="modalities T2, T1, expected T1, T2 in this order"):
        examine()


@pytest.mark.parametrize("headers_only", [False, True])
def test_label_on_another_grid(examine: Callable, write_nifti: Callable, headers_only: bool) -> None:
    write_nifti("data/training_gtv.nii.gz", np.ones((12, 10, 6), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    ((kind, where, what),) = examine(headers_only=headers_only)
    assert (kind, where) == ("failure", "training t") and "resample it onto the image" in what


@pytest.mark.parametrize("headers_only", [False, True])
def test_modalities_on_other_grids(examine: Callable, write_nifti: Callable, headers_only: bool) -> None:
    image = np.random.default_rng(1).random((12, 10, 6), np.float32)
    half = np.diag([1.0, 1.0, 4.0, 1.0])
    half[0, 3] = 6.0
    write_nifti("data/training_T2.nii.gz", image, half)
    far = np.diag([1.0, 1.0, 4.0, 1.0])
    far[0, 3] = 500.0
    write_nifti("data/test_T2.nii.gz", image, far)
    first, second = examine(headers_only=headers_only)
    assert first[:2] == ("note", "training t") and "50" in first[2] and "another grid" in first[2]
    assert second[:2] == ("failure", "test t") and "shares no space" in second[2]


def test_number_of_channels(examine: Callable, listing: dict) -> None:
    listing["test"][0]["image"] = "test_T1.nii.gz"
    for headers_only in (False, True):
        ((kind, where, what),) = examine(headers_only=headers_only)
        assert (kind, where) == ("failure", "test t") and "T1, T2" in what


def test_damaged_file(examine: Callable, tmp_path: Path) -> None:
    file = tmp_path / "data" / "training_T1.nii.gz"
    file.write_bytes(file.read_bytes()[:1500])  # its header is whole
    ((kind, where, what),) = examine()
    assert (kind, where) == ("failure", "training t") and "not a complete NIfTI file" in what
    assert examine(headers_only=True) == []
    file.write_bytes(b"no gzip")
    ((kind, where, what),) = examine(headers_only=True)
    assert (kind, where) == ("failure", "training t") and "not a NIfTI file" in what


def test_patient_on_two_lists(examine: Callable, listing: dict) -> None:
    for section in ("training", "test"):
        listing[section][0]["patient"] = "A"
    listing["validation"][0]["patient"] = "B"
    ((kind, where, what),) = examine(headers_only=True)
    assert (kind, where) == ("failure", "patient A") and "t (training), t (test)" in what


def test_the_same_file_on_two_lists(examine: Callable, listing: dict) -> None:
    listing["validation"][0]["image"] = listing["training"][0]["image"]
    found = examine(headers_only=True)
    assert [kind for kind, *_ in found] == ["failure", "failure"]
    assert "in training t and validation v" in found[0][2]


def test_a_copy_under_another_name(examine: Callable, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "data" / "training_T1.nii.gz", tmp_path / "data" / "test_T1.nii.gz")
    ((kind, _, what),) = examine()
    assert kind == "failure" and "files of the same content, training_T1.nii.gz, test_T1.nii.gz" in what
    assert examine(headers_only=True) == []


def test_a_file_for_two_modalities(examine: Callable, listing: dict) -> None:
    listing["test"][0]["image"] = ["test_T2.nii.gz", "test_T2.nii.gz"]
    assert [found[:2] for found in examine(headers_only=True) if found[0] == "failure"] == [("failure", "test t")]


def test_a_list_without_cases_is_a_note(examine: Callable, listing: dict) -> None:
    del listing["test"]
    ((kind, where, _),) = examine(headers_only=True)
    assert (kind, where) == ("note", "list test")


def test_fold(examine: Callable, listing: dict) -> None:
    with pytest.raises(InputError, match="--fold 0, but its cases have no fold"):
        examine(fold=0)
    for order, section in enumerate(("training", "validation", "test")):
        listing[section][0].update(fold=order, order=order)
    assert examine(fold=2, headers_only=True) == []


def test_scans_without_labels(bundle: Path, tmp_path: Path, listing: dict) -> None:
    findings = Findings()
    (tmp_path / "data" / "test_T2.nii.gz").unlink()  # what is left is taken to hold both
    for file in (tmp_path / "data").glob("*gtv*"):
        file.unlink()
    lines = examine_data(findings, bundle, tmp_path / "data")
    assert "cases: 3 scans" in lines
    ((kind, where, what),) = findings.found
    assert (kind, where) == ("failure", "scans test") and "T1, T2" in what
