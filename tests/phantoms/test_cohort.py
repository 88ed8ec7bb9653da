from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.__main__ import main
from common.data import load_cases
from common.errors import InputError
from common.phantoms import ensure_cohort, write_cohort

from .checks import make
from .recipes import Ball, SortedBall


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def listing_of(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_a_cohort_begins_with_the_cases_of_a_smaller_one(tmp_path: Path) -> None:
    few = files(write_cohort(Ball(), tmp_path / "few", 3, seed=7))
    more = files(write_cohort(Ball(), tmp_path / "more", 5, seed=7))
    other = files(write_cohort(Ball(), tmp_path / "other", 3, seed=8))
    del few["dataset.json"]
    assert few.items() < more.items()
    assert all(few[name] != other[name] for name in few)


def test_a_cohort_written_again_has_the_same_bytes(tmp_path: Path) -> None:
    first = files(write_cohort(Ball(), tmp_path, 3))
    assert files(write_cohort(Ball(), tmp_path, 3)) == first
    next(tmp_path.glob("images/*.nii.gz")).unlink()
    assert files(write_cohort(Ball(), tmp_path, 3)) == first


@pytest.mark.parametrize("name", ["dataset.json", "labels/case_001.nii.gz"])
def test_a_changed_file_of_a_cohort_is_kept(tmp_path: Path, name: str) -> None:
    write_cohort(Ball(), tmp_path, 3)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n")
    before = files(tmp_path)
    with pytest.raises(InputError, match=name):
        write_cohort(Ball(), tmp_path, 3)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("cases", "sizes"), [(3, (1, 1, 1)), (8, (4, 2, 2))])
def test_the_data_list_names_every_file(tmp_path: Path, cases: int, sizes: tuple[int, int, int]) -> None:
    assert write_cohort(Ball(), str(tmp_path), cases) == tmp_path
    listing = listing_of(tmp_path)
    assert listing["name"] == "Ball" and "not for clinical use" in listing["description"]
    assert listing["modality"] == {"0": "A", "1": "B"}
    assert listing["labels"] == {"0": "background", "2": "ball"}
    assert (listing["numTraining"], listing["numTest"]) == (sizes[0], sizes[2])
    lists = [listing[section] for section in ("training", "validation", "test")]
    assert tuple(map(len, lists)) == sizes
    entries = [entry for entries in lists for entry in entries]
    named = [path for entry in entries for path in [*entry["image"], entry["label"]]]
    assert len(named) == 3 * cases
    assert {*named, "dataset.json"} == files(tmp_path).keys()
    assert entries[0] == {
        "case": "case_000",
        "image": ["images/case_000_A.nii.gz", "images/case_000_B.nii.gz"],
        "label": "labels/case_000.nii.gz",
        "site": "bench",
    }


def test_files_hold_the_case(tmp_path: Path) -> None:
    write_cohort(Ball(), tmp_path, 3, seed=4)
    case = Ball()(np.random.default_rng([4, 2]))
    label = nib.load(tmp_path / "labels" / "case_002.nii.gz")
    assert label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(label.dataobj), case.label)
    for modality, volume in case.images.items():
        image = nib.load(tmp_path / "images" / f"case_002_{modality}.nii.gz")
        assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.get_sform(), case.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), case.affine, atol=1e-4)


def test_an_existing_cohort_is_kept(tmp_path: Path) -> None:
    write_cohort(Ball(), tmp_path, 3)
    (tmp_path / "labels" / "case_000.nii.gz").unlink()
    before = files(tmp_path)
    assert ensure_cohort(Ball(), tmp_path) == tmp_path
    assert files(tmp_path) == before
    assert (ensure_cohort(Ball(), tmp_path / "new") / "images" / "case_003_B.nii.gz").exists()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    cohort = write_cohort(Ball(), tmp_path / "cohort", 3)
    for out, phantom, cases in [
        (tmp_path / "mine", Ball(), 3),
        (tmp_path / "mine" / "notes.txt", Ball(), 3),
        (cohort, Ball(), 4),
        (cohort, replace(Ball(), size=(14, 10, 8)), 3),
    ]:
        with pytest.raises(InputError, match="exists and is not this phantom cohort; give another --out or remove it"):
            write_cohort(phantom, out, cases)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_classes_alternate_in_the_data_list(tmp_path: Path) -> None:
    write_cohort(SortedBall(), tmp_path, 12, seed=2)
    listing = listing_of(tmp_path)
    entries = [entry for section in ("training", "validation", "test") for entry in listing[section]]
    assert [entry["class"] for entry in entries] == ["red", "green", "blue"] * 4
    files_of_1 = {"image": "images/case_001.nii.gz", "label": "labels/case_001.nii.gz"}
    assert entries[1] == {"case": "case_001", **files_of_1, "class": "green"}
    named = {path for entry in entries for path in (entry["image"], entry["label"])}
    assert {*named, "dataset.json"} == files(tmp_path).keys()
    case = SortedBall()(np.random.default_rng([2, 1]), "green")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / entries[1]["label"]).dataobj), case.label)
    loaded = load_cases(tmp_path, "training", ("CT",))
    assert loaded[0]["image"] == str(tmp_path / "images" / "case_000.nii.gz")


def test_the_lists_of_a_default_cohort_are_balanced(tmp_path: Path) -> None:
    listing = listing_of(ensure_cohort(SortedBall(), tmp_path))
    lists = [[entry["class"] for entry in listing[s]] for s in ("training", "validation", "test")]
    assert sum(map(len, lists)) == 24
    for names in lists:
        counts = [names.count(name) for name in SortedBall.classes]
        assert max(counts) - min(counts) <= 1, counts


def test_fewer_than_three_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--cases 2: expected at least 3"):
        write_cohort(Ball(), tmp_path / "cohort", 2)
    assert not (tmp_path / "cohort").exists()


def test_the_command_writes_the_recipe_of_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    recipe = {"_target_": f"{Ball.__module__}.Ball", "size": [14, 10, 8], "spacing": [4.0, 4.0, 5.0]}
    (tmp_path / "mine" / "configs" / "demo.json").write_text(json.dumps({"phantom": recipe}))
    for options, cases in (([], 4), (["--cases=3"], 3)):
        out = str(tmp_path / f"data{cases}")
        monkeypatch.setattr(sys, "argv", ["common", "phantoms", str(tmp_path / "mine"), f"--out={out}", *options])
        main()
        assert capsys.readouterr().out == f"{cases} cases in {out}\n"
        assert len(list(Path(out).glob("images/*_A.nii.gz"))) == cases
    label = nib.load(tmp_path / "data3" / "labels" / "case_002.nii.gz")
    np.testing.assert_array_equal(np.asarray(label.dataobj), make(replace(Ball(), size=(14, 10, 8)), [0, 2]).label)
