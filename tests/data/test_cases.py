from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.data import find_cases, load_cases
from common.data.datalist import write_datalist
from common.data.names import modality_of, stem
from common.errors import InputError

NAMES = ("T1", "T2", "CET1")


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., None]:
    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def listed(tmp_path: Path, modalities: tuple[str, ...] = NAMES, **kwargs: object) -> dict[str, object]:
    cases = find_cases(tmp_path, modalities, **kwargs)  # type: ignore[arg-type]

    def short(image: str | list[str]) -> object:
        paths = [image] if isinstance(image, str) else image
        names = [Path(p).relative_to(tmp_path).as_posix() for p in paths]
        return names[0] if isinstance(image, str) else names

    return {case["case"]: short(case["image"]) if "image" in case else case["error"] for case in cases}


@pytest.mark.parametrize(
    ("name", "modality", "rest"),
    [
        ("P1_T1", "T1", "P1"),
        ("TCGA-DU-7294_t1c", "CET1", "TCGA-DU-7294"),
        ("sub-2_T2w", "T2", "sub-2"),
        ("t1ce", "CET1", ""),
        ("P_0002", "CET1", "P"),
        ("BraTS-GLI-00000-000-t2f", "FLAIR", "BraTS-GLI-00000-000"),
        ("P_0007", None, "P_0007"),
        ("plain", None, "plain"),
    ],
)
def test_modality_of(name: str, modality: str | None, rest: str) -> None:
    assert modality_of(name, NAMES) == (modality, rest)


def test_stem_removes_the_suffix_of_an_image() -> None:
    assert [stem(n) for n in ("a.nii.gz", "a.b.NII", "c.mha", "d")] == ["a", "a.b", "c", "d"]


def test_folder_of_patients(tmp_path: Path, touch: Callable) -> None:
    touch("P1/x_CET1.nii.gz", "P1/x_T1.nii.gz", "P1/x_T2.nii.gz", "P1/x_flair.nii.gz", "P2/all.nii", ".hidden/a.nii")
    assert listed(tmp_path) == {"P1": ["P1/x_T1.nii.gz", "P1/x_T2.nii.gz", "P1/x_CET1.nii.gz"], "P2": "P2/all.nii"}


def test_flat_folder_is_grouped_by_name(tmp_path: Path, touch: Callable) -> None:
    touch("a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz", "stacked.nii.gz", "notes.txt", ".partial_b.nii.gz")
    assert listed(tmp_path) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"], "stacked": "stacked.nii.gz"}


def test_single_modality_folder_is_not_grouped(tmp_path: Path, touch: Callable) -> None:
    touch("liver_0000.nii.gz", "a_t1.mha")
    assert listed(tmp_path, ("CT",)) == {"a_t1": "a_t1.mha", "liver_0000": "liver_0000.nii.gz"}


def test_incomplete_cases_do_not_hide_the_others(tmp_path: Path, touch: Callable) -> None:
    touch("P1/T1.nii", "P1/T2.nii", "P1/CET1.nii", "P2/T1.nii", "P2/T2.nii", "P3/readme.txt")
    touch("P4/a_T1.nii", "P4/b_T1.nii", "P4/a_T2.nii", "P4/a_ce.nii")
    cases = listed(tmp_path)
    assert cases["P1"] == ["P1/T1.nii", "P1/T2.nii", "P1/CET1.nii"]
    assert "P2: no CET1 among T1.nii, T2.nii" in str(cases["P2"])
    assert "P3: no scans" in str(cases["P3"])
    assert "P4: 2 files for T1 among a_T1.nii, b_T1.nii" in str(cases["P4"])


def test_one_scan_and_the_output_folder(tmp_path: Path, touch: Callable) -> None:
    touch("a.nii.gz", "out/a_seg.nii.gz")
    assert listed(tmp_path, exclude=tmp_path / "out") == {"a": "a.nii.gz"}
    assert find_cases(tmp_path / "a.nii.gz") == [{"case": "a", "image": str(tmp_path / "a.nii.gz")}]
    with pytest.raises(InputError, match=r"output_dir=.* is the folder of the scans"):
        find_cases(tmp_path, exclude=tmp_path)


def test_scans_of_one_name_are_errors_that_name_all(tmp_path: Path, touch: Callable) -> None:
    touch("a.nii", "a.nii.gz", "a/b.nii", "a_2.nii", "P1.nii", "p1.nii.gz", "good.nii")
    cases = listed(tmp_path)
    assert {name for name, found in cases.items() if name == str(found).removesuffix(".nii")} == {"a_2", "good"}
    for name in ("a.nii", "a.nii.gz", "a/b.nii"):
        assert "a.nii and a.nii.gz and a/b.nii: several cases with the name a; rename the scans" in str(cases[name])
    for name in ("P1.nii", "p1.nii.gz"):
        assert "P1.nii and p1.nii.gz: several cases with the name P1, p1" in str(cases[name])


def test_a_path_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no scans .*, no sub-folders and no dataset.json"):
        find_cases(tmp_path)


@pytest.fixture
def cohort(tmp_path: Path, touch: Callable) -> Path:
    """Write ten cases in nnU-Net's layout, with the channels in another order."""
    for i in range(10):
        touch(*(f"imagesTr/c{i}_000{c}.nii.gz" for c in range(3)), f"labelsTr/c{i}.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T2", "1": "T1", "2": "T1ce"}}))
    return tmp_path


def test_folds_split_by_case_and_cover_all(cohort: Path) -> None:
    tests = []
    for fold in range(5):
        lists = write_datalist("nnunet", cohort, cohort / "list" / "dataset.json", NAMES, folds=5, fold=fold)
        names = [{item["label"] for item in lists[s]} for s in ("training", "validation", "test")]
        assert [len(n) for n in names] == [6, 2, 2]
        assert len(set.union(*names)) == 10
        tests += names[2]
    assert len(set(tests)) == 10


def test_channels_are_put_in_the_networks_order(cohort: Path) -> None:
    write_datalist("nnunet", cohort, cohort / "list" / "dataset.json", NAMES)
    case = load_cases(cohort / "list", "training", NAMES)[0]
    assert [Path(p).name[-11:-7] for p in case["image"]] == ["0001", "0000", "0002"]
    assert case["label"].endswith(f"{case['case']}.nii.gz")
    with pytest.raises(InputError, match="modalities T1, T2, CET1, expected T2, T1, CET1 in this order"):
        load_cases(cohort / "list", "training", ("T2", "T1", "CET1"))
    with pytest.raises(InputError, match=r"channels T2, T1, T1ce, expected FLAIR"):
        write_datalist("nnunet", cohort, cohort / "list" / "dataset.json", ("T1", "FLAIR"))


def test_fold_of_a_training_is_that_of_the_list(cohort: Path) -> None:
    path = cohort / "list" / "dataset.json"
    held_out = write_datalist("nnunet", cohort, path, NAMES, fold=3)["test"]
    write_datalist("nnunet", cohort, path, NAMES, fold=0)
    labels = {c["label"] for c in load_cases(path.parent, "test", fold=3)}
    assert labels == {os.path.normpath(path.parent / case["label"]) for case in held_out}
    images = {c["image"][0] for c in find_cases(path.parent, fold=3)}
    assert images == {os.path.normpath(path.parent / case["image"][0]) for case in held_out}
    with pytest.raises(InputError, match="scans alone have no folds"):
        find_cases(cohort / "imagesTr", fold=3)
    with pytest.raises(InputError, match=r"unknown fold 5, expected one of \[0, 1, 2, 3, 4\]"):
        load_cases(path.parent, "test", fold=5)
    item = {"image": "a.nii", "label": "b.nii"}
    path.write_text(json.dumps({"training": [item], "validation": [item]}))
    with pytest.raises(InputError, match="its cases have no fold"):
        load_cases(path.parent, "test", fold=0)


def test_nnunet_folders_without_a_list_have_folds(cohort: Path) -> None:
    listed = [case["case"] for case in find_cases(cohort, ("T2", "T1", "CET1"), fold=1)]
    (cohort / "dataset.json").unlink()
    assert [case["case"] for case in find_cases(cohort, NAMES, fold=1)] == listed and len(listed) == 2


def test_a_decathlon_folder_with_test_images_has_folds(cohort: Path) -> None:
    training = [{"image": f"imagesTr/c{i}_0000.nii.gz", "label": f"labelsTr/c{i}.nii.gz"} for i in range(10)]
    listing = {"modality": {"0": "MRI"}, "training": training, "test": ["./imagesTs/c90.nii.gz"]}
    (cohort / "dataset.json").write_text(json.dumps(listing))
    tested = [case["case"] for fold in range(5) for case in load_cases(cohort, "test", ["MRI"], fold)]
    assert len(tested) == 10 and len({*tested}) == 10


def test_folders_layout(tmp_path: Path, touch: Callable) -> None:
    for i in range(3):
        touch(f"in/P{i}/T1.nii.gz", f"in/P{i}/T2.nii.gz", f"in/P{i}/CET1.nii.gz", f"in/P{i}/P{i}_gtv.nii.gz")
    lists = write_datalist("folders", tmp_path / "in", tmp_path / "dataset.json", NAMES, folds=3)
    assert [len(cases) for cases in lists.values()] == [1, 1, 1]
    case = load_cases(tmp_path, "test", NAMES)[0]
    assert case["case"] == Path(case["label"]).parent.name
    touch("in/P3/T1.nii.gz")
    with pytest.raises(InputError, match="P3: 0 label files"):
        write_datalist("folders", tmp_path / "in", tmp_path / "dataset.json", NAMES, folds=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "dataset.json: no such file; give a data set's folder with --dataset_dir"),
        ("{", "dataset.json: not valid JSON"),
        ("[]", "dataset.json: expected an object"),
        ('{"training": []}', r"no cases under 'training' \(lists with cases: none\)"),
        ('{"training": [{"image": "a.nii"}]}', "has no label"),
        ('{"training": [{"image": "a.nii", "label": "b.nii", "fold": 0}]}', r"names missing files: .*a.nii, .*b.nii"),
        ('{"modality": {"0": "CT"}, "training": [{"image": "a.nii"}]}', "modalities CT, expected T1, T2, CET1"),
    ],
)
def test_data_list_that_cannot_be_used(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_cases(tmp_path, "training", NAMES)


def test_layout_that_cannot_be_used(tmp_path: Path, touch: Callable) -> None:
    with pytest.raises(InputError, match="layout bids: expected one of nnunet, folders"):
        write_datalist("bids", tmp_path, tmp_path / "dataset.json")
    with pytest.raises(InputError, match="labelsTr: no label files"):
        write_datalist("nnunet", tmp_path, tmp_path / "dataset.json")
    touch("imagesTr/a.nii", "labelsTr/a.nii")
    with pytest.raises(InputError, match="1 patient, expected at least 2"):
        write_datalist("nnunet", tmp_path, tmp_path / "dataset.json")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="exists and is not an unchanged list"):
        write_datalist("nnunet", tmp_path, tmp_path / "dataset.json")


# Folders of DICOM files.


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., None]:
    """Write two files that are DICOM by their first bytes alone, and one beside them that is not DICOM."""

    def make(*names: str) -> None:
        for name in names:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            for i in (1, 2):
                (tmp_path / name / f"CT.1.2.{i}").write_bytes(bytes(128) + b"DICM")
            (tmp_path / name / "readme").write_text("no DICOM")

    return make


def test_a_folder_of_dicom_is_a_case(tmp_path: Path, series: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    series("P1")
    assert find_cases(tmp_path / "P1", ("CT",)) == [{"case": "P1", "image": str(tmp_path / "P1")}]
    monkeypatch.chdir(tmp_path / "P1")
    assert find_cases(".", ("CT",)) == [{"case": "P1", "image": "."}]
    assert find_cases(tmp_path / "P1", ("CT",), exclude=tmp_path / "P1" / "out") == find_cases(tmp_path / "P1")


def test_folders_of_dicom_beside_files_and_deeper(tmp_path: Path, touch: Callable, series: Callable) -> None:
    series("P1", "P2/axial", "P3/1", "P3/2", "P4", "out", ".hidden")
    touch("a.nii.gz", "P4/seg.nii.gz", "P5/a.mha", "P6/b.dcm")
    cases = listed(tmp_path, ("CT",), exclude=tmp_path / "out")
    assert cases == {
        **{"a": "a.nii.gz", "P1": "P1", "P2": "P2/axial", "P5": "P5/a.mha", "P6": "P6"},
        **{name: cases[name] for name in ("P3", "P4")},
    }
    assert "P3: 2 scans (1, 2), expected one" in str(cases["P3"])
    assert "P4: 2 scans (P4, seg.nii.gz), expected one" in str(cases["P4"])


def test_modalities_as_folders_of_dicom(tmp_path: Path, touch: Callable, series: Callable) -> None:
    series("P1/T1", "P1/T2", "P2_T1", "P2_T2", "P2_CET1")
    touch("P1/CET1.nii.gz")
    assert listed(tmp_path) == {
        "P1": ["P1/T1", "P1/T2", "P1/CET1.nii.gz"],
        "P2": ["P2_T1", "P2_T2", "P2_CET1"],
    }
    images = [str(tmp_path / "P1" / name) for name in ("T1", "T2", "CET1.nii.gz")]
    assert find_cases(tmp_path / "P1", NAMES) == [{"case": "P1", "image": images}]


def test_dicom_in_data_lists(tmp_path: Path, touch: Callable, series: Callable) -> None:
    for i in range(3):
        series(f"in/P{i}/ct", f"nn/imagesTr/c{i}")
        touch(f"in/P{i}/seg.nii.gz", f"nn/labelsTr/c{i}.nii.gz")
    for layout, root, image in (("folders", "in", "{}/ct"), ("nnunet", "nn", "imagesTr/{}")):
        write_datalist(layout, tmp_path / root, tmp_path / "dataset.json", ("CT",), folds=3)
        case = load_cases(tmp_path, "test", ("CT",))[0]
        assert case["image"] == str(tmp_path / root / image.format(case["case"]))


def test_a_data_list_with_unnumbered_modalities_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"modality": {"a": "CT"}, "test": [{"image": "a.nii.gz"}]}')
    with pytest.raises(InputError, match=r"dataset\.json: modality has the keys a, expected numbers from 0"):
        load_cases(tmp_path, "test", ["CT"])


def test_the_error_for_an_exported_tree_names_the_folder_to_give(tmp_path: Path) -> None:
    series = tmp_path / "export" / "P1" / "study" / "axial"
    series.mkdir(parents=True)
    (series / "IM001.dcm").touch()
    (case,) = find_cases(tmp_path / "export", ["CT"])
    where = f"found a series deeper, {series}; give the folder {series.parent} or the folder of one series"
    assert case["case"] == "P1" and f"{where}; with --series best" in case["error"]


def test_an_empty_folder_beside_slices_is_not_a_case(tmp_path: Path) -> None:
    (tmp_path / "P1" / "empty").mkdir(parents=True)
    (tmp_path / "P1" / "IM001.dcm").touch()
    assert [case["case"] for case in find_cases(tmp_path / "P1", ["CT"])] == ["P1"]


def test_a_folder_without_permission_is_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.nii").touch()
    list_folder = Path.iterdir

    def refuse(self: Path) -> Iterator[Path]:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return list_folder(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    good, locked = find_cases(tmp_path, ["CT"])
    assert good == {"case": "good", "image": str(tmp_path / "good" / "scan.nii")}
    assert locked["case"] == "locked" and locked["error"].startswith(f"{tmp_path / 'locked'}: permission denied; ")


def test_files_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "IM001").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (case,) = find_cases(tmp_path, ["CT"])
    assert case["error"].endswith("DICOM) in this folder; permission denied for IM001")


def test_an_evaluation_keeps_cases_with_missing_files(tmp_path: Path, touch: Callable) -> None:
    touch("a.nii", "a_seg.nii", "b.nii")
    items = [{"image": f"{name}.nii", "label": f"{name}_seg.nii"} for name in "abc"]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
    with pytest.raises(InputError, match=r"names missing files: .*b_seg\.nii"):
        load_cases(tmp_path, "test")
    assert [case["case"] for case in load_cases(tmp_path, "test", allow_missing=True)] == ["a", "b", "c"]
    assert [case["case"] for case in find_cases(tmp_path)] == ["a", "b", "c"]


@pytest.mark.parametrize("names", [["P/P_fla.nii", "P/P_t1.nii", "P/P_t2.nii"], ["P_fla.nii", "P_t1.nii", "P_t2.nii"]])
def test_scans_that_no_case_uses_are_named_once(
    tmp_path: Path, touch: Callable, caplog: pytest.LogCaptureFixture, names: list[str]
) -> None:
    touch(*names, *(name.replace("P", "Q") for name in names))
    assert all("error" not in case and len(case) == 2 for case in find_cases(tmp_path, ["T1", "T2"]))
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: 2 scans are ignored, such as P_fla.nii; a case uses T1, T2"


def test_the_advice_for_one_modality_names_no_other(tmp_path: Path, touch: Callable) -> None:
    touch("P/a.nii", "P/b.nii")
    (case,) = find_cases(tmp_path, ["CT"])
    assert case["error"].endswith("expected one; put each case into its own folder")
