"""Test what a data set says of itself, the names of its labels, its splits, and the written list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.data import load_cases
from common.data.datalist import write_datalist
from common.errors import InputError, UsageError

from .layouts import NAMES, listed, touch


@pytest.fixture
def livers(tmp_path: Path) -> Path:
    touch(tmp_path / "in", *(f"{kind}Tr/c{i}.nii.gz" for kind in ("images", "labels") for i in range(6)))
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"modality": "CT"}, None),
        ({"modality": ["CT"]}, None),
        ({"modality": {"CT": 0}}, None),
        ({"modality": None}, None),
        ({"channel_names": {"CT": 0}, "numTraining": "6", "training": 6}, None),
        ({"labels": ["background", "liver", "tumor"]}, None),
        ({"labels": {"background": 0, "liver": 1, "tumor": 2, "all": [1, 2]}}, None),
        ({"labels": {"background": 0, "pancreas": 1}}, "label 1 is pancreas, expected liver in layout msd_task03"),
        ({"labels": 3}, "labels is 3; expected names"),
        ({"modality": {"a": "CT"}}, "modality has the keys a, expected numbers from 0"),
        ({"modality": {"0": 5}}, "modality is .*; expected names"),
        ([1], r"expected an object that describes the data set, found '\[1\]'"),
    ],
)
def test_forms_of_a_data_sets_own_description(livers: Path, content: object, message: str | None) -> None:
    (livers / "dataset.json").write_text(json.dumps(content))
    out = livers.parent / "list" / "dataset.json"
    if message is None:
        write_datalist("msd_task03", livers, out, ("CT",), folds=2)
        assert load_cases(out.parent, "test", ("CT",))
        return
    with pytest.raises(InputError, match=message):
        write_datalist("msd_task03", livers, out, ("CT",), folds=2)


@pytest.mark.parametrize("named", ["CT", ["CT"], {"CT": 0}, {"0": "ct"}])
def test_forms_of_modality_in_a_list(livers: Path, named: object) -> None:
    listing = {"modality": named, "test": [{"image": "imagesTr/c0.nii.gz", "label": "labelsTr/c0.nii.gz"}]}
    (livers / "dataset.json").write_text(json.dumps(listing))
    assert load_cases(livers, "test", ("CT",))[0]["case"] == "c0"
    with pytest.raises(InputError, match=r"modalities (CT|ct), expected T1, T2 in this order"):
        load_cases(livers, "test", ("T1", "T2"))


@pytest.mark.parametrize("label", ["P{}-label", "P{}.seg", "P{} seg", "Segmentation-label", "P{}_gtv", "GTV"])
def test_words_of_a_labels_name(tmp_path: Path, label: str) -> None:
    for i in range(2):
        touch(tmp_path / "in" / f"P{i}", "ct.nii.gz", f"{label.format(i)}.nii.gz")
    cases = listed(tmp_path / "in", "folders", folds=2, modalities=("CT",), validation_share=0)
    assert cases["P0"]["files"] == ["ct.nii.gz", f"{label.format(0)}.nii.gz"]


def test_numbers_of_cases_and_of_channels_are_distinguished(tmp_path: Path) -> None:
    names = ("word_0002", "word_0004", "P_0000", "P_0001", "P_0002")
    touch(tmp_path / "in", *(f"{kind}Tr/{name}.nii.gz" for kind in ("images", "labels") for name in names))
    touch(tmp_path / "in", *(f"imagesTr/kid_010_000{i}.nii.gz" for i in range(4)), "labelsTr/kid_010.nii.gz")
    cases = listed(tmp_path / "in", "nnunet", modalities=NAMES)
    assert cases.keys() == {*names, "kid_010"}
    assert all(cases[name]["files"] == [f"{name}.nii.gz"] * 2 for name in names)
    assert cases["kid_010"]["files"][:-1] == [f"kid_010_000{i}.nii.gz" for i in range(4)]
    (tmp_path / "in" / "imagesTr" / "kid_010_0002.nii.gz").rename(tmp_path / "in" / "imagesTr" / "kid_010_0007.nii.gz")
    with pytest.raises(
        InputError, match=r"kid_010_0003.nii.gz, kid_010_0007.nii.gz in .*; expected one, or one for each"
    ):
        write_datalist("nnunet", tmp_path / "in", tmp_path / "dataset.json", NAMES, 3)


def test_channels_that_do_not_fit_their_names_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "in"
    touch(root, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b_0000.nii.gz")
    touch(root, "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    description = {"channel_names": {"0": "T1", "1": "T2"}}
    for names, modalities, message in (
        (["T1", "T2"], ("T2",), r"b.nii.gz: found images b_0000.nii.gz in .*one for each of the channels"),
        (["T1"], ("T1",), r"a.nii.gz: found images a_0000.nii.gz, a_0001.nii.gz in .*one for each of the channels"),
        (["T1", "T1"], ("T1",), "channel_names names 2 channels 'T1'; give each its own name"),
    ):
        description["channel_names"] = {str(number): name for number, name in enumerate(names)}
        (root / "dataset.json").write_text(json.dumps(description))
        with pytest.raises(InputError, match=message):
            write_datalist("nnunet", root, tmp_path / "dataset.json", modalities, folds=2)


def test_only_a_list_that_nobody_edited_is_replaced(livers: Path) -> None:
    out = livers.parent / "dataset.json"
    for seed in range(2):
        write_datalist("nnunet", livers, out, ("CT",), folds=2, seed=seed)
    written = out.read_text()
    out.write_text(json.dumps(json.loads(written)))  # only laid out anew
    write_datalist("nnunet", livers, out, ("CT",), folds=2)
    edited = out.read_text().replace('"case": "c1"', '"case": "my c1"')
    for content in (edited, '{"description": "see the folder"}', "{}", "[]", "not JSON", ""):
        out.write_text(content)
        with pytest.raises(InputError, match="exists and is not an unchanged list"):
            write_datalist("nnunet", livers, out, ("CT",), folds=2)
        assert out.read_text() == content
    with pytest.raises(InputError, match="exists and is not an unchanged list"):
        write_datalist("nnunet", livers, livers / "imagesTr" / "c0.nii.gz", ("CT",), folds=2)
    with pytest.raises(InputError, match="exists and is not an unchanged list"):
        write_datalist("nnunet", livers, livers, ("CT",), folds=2)


def test_splits_of_nnunet(livers: Path) -> None:
    path, out = livers.parent / "splits_final.json", livers.parent / "dataset.json"
    folds = [["c0", "c3"], ["c1", "c5"], ["c4"], ["c2"]]
    path.write_text(json.dumps([{"train": [], "val": names} for names in folds]))
    write_datalist("nnunet", livers, out, ("CT",), splits=path, fold=1)
    for fold, names in enumerate(folds):
        assert sorted(case["case"] for case in load_cases(out.parent, "test", ("CT",), fold)) == names
    assert sorted(case["case"] for case in load_cases(out.parent, "test", ("CT",))) == folds[1]
    with pytest.raises(UsageError, match=r"--folds 3, but .*splits_final.json has 4 splits; omit --folds"):
        write_datalist("nnunet", livers, out, ("CT",), folds=3, splits=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"val": []}, "expected nnU-Net's splits_final.json"),
        ([{"train": ["c0"]}], "expected nnU-Net's splits_final.json"),
        ([{"val": ["c0", "c1"]}, {"val": ["c1", "c2", "c3", "c4", "c5"]}], "c1 is under val of splits 0 and 1"),
        ([{"val": ["c0", "c1"]}, {"val": ["c2", "c3"]}], "c4, c5 under val of no split"),
        ([{"val": ["c0", "x"]}, {"val": ["c2", "c3"]}], "no labelled case for x; cases are c0, c1, c2 and 3 more"),
    ],
)
def test_splits_that_do_not_fit(livers: Path, content: object, message: str) -> None:
    path = livers.parent / "splits_final.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), splits=path)


def test_splits_that_divide_a_patient_are_refused(livers: Path) -> None:
    path, table = livers.parent / "splits_final.json", livers.parent / "patients.csv"
    path.write_text(json.dumps([{"val": ["c0", "c1", "c2"]}, {"val": ["c3", "c4", "c5"]}]))
    table.write_text("case,patient\nc0,A\nc1,B\nc2,C\nc3,C\nc4,D\nc5,E\n")
    with pytest.raises(InputError, match="c2, c3, of the patient C, are under val of several splits"):
        write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), splits=path, classes=table)


def test_the_share_of_validation_in_the_written_lists(livers: Path) -> None:
    lists = write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), folds=2, validation_share=0)
    assert [len(cases) for cases in lists.values()] == [3, 0, 3]
    with pytest.raises(UsageError, match=r"validation_share=1.5: expected a number"):
        write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), folds=2, validation_share=1.5)


def test_a_list_keeps_what_the_data_set_calls_its_labels(tmp_path: Path) -> None:
    root = tmp_path / "Dataset001"
    touch(root, *(f"{kind}Tr/P{i}.nii.gz" for kind in ("images", "labels") for i in range(3)))
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "kidney": 1, "cyst": 2, "whole": [1, 2]}}
    (root / "dataset.json").write_text(json.dumps(description))
    write_datalist("nnunet", root, tmp_path / "lists" / "dataset.json", ("CT",), 3)
    listing = json.loads((tmp_path / "lists" / "dataset.json").read_text())
    assert listing["labels"] == {"1": "kidney", "2": "cyst"}
