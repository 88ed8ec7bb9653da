"""Test that the name of a case follows from the path of its scan, and that no result leaves its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data import find_cases, load_cases
from common.data.names import LONGEST_NAME, case_name, safe_name, scan_name, without_detours
from common.errors import InputError

from .layouts import touch

NAMES = ("T1", "T2", "CET1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("siteA/P1", "siteA_P1"),
        ("a\\b", "a_b"),
        ("a\nb\x00\x1b", "a_b__"),
        ('a:b*?"<>|', "a_b______"),
        ("/abc/P1", "_abc_P1"),
        ("a/../b", "a_.._b"),
        ("M\u00fcller 1", "M\u00fcller 1"),
        ("a\u2028b", "a_b"),
        ("a\ud800b", "a_b"),
        (17, "17"),
        ("x" * LONGEST_NAME, "x" * LONGEST_NAME),
    ],
)
def test_a_name_becomes_that_of_a_file(name: object, expected: str) -> None:
    assert safe_name(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", "'../evil' begins with a dot; rename the scan"),
        (".hidden", "begins with a dot"),
        ("", "'' is empty"),
        ("  ", "is empty"),
        ("x" * (LONGEST_NAME + 1), r"'x+\.\.\. has 201 bytes, expected at most 200"),
        ("\u00fc" * 150, "has 300 bytes"),
        (None, "None: expected a string"),
        (1.5, "1.5: expected a string"),
        (True, "True: expected a string"),
        (["x"], r"\['x'\]: expected a string"),
    ],
)
def test_a_name_that_no_result_can_have(name: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        safe_name(name)


def test_random_names_stay_in_their_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = ["..", ".", "/", "\\", "a", "\n", ":", "\u00fc", " ", "\x00", "C:", "~", "\udcff"]
    for _ in range(300):
        name = "".join(rng.choice(parts, int(rng.integers(1, 6))))
        try:
            result = tmp_path / f"{safe_name(name)}_seg.nii.gz"
        except InputError:
            continue
        assert Path(os.path.normpath(result)).parent == tmp_path and not result.name.startswith(".")
        result.touch()


@pytest.mark.parametrize(
    ("images", "name"),
    [
        (["A/scan.nii.gz"], "A_scan"),
        (["siteA/P1/ct.nii.gz"], "siteA_P1_ct"),
        (["imagesTr/liver_1.nii.gz"], "liver_1"),
        (["./imagesTs/liver_1.nii.gz"], "liver_1"),
        (["../../raw/P1.nii.gz"], "raw_P1"),
        (["P1/T1.nii.gz", "P1/T2.nii.gz"], "P1"),
        (["images/c_0_T1.nii.gz", "images/c_0_T2.nii.gz"], "c_0"),
        (["T1/P1.nii.gz", "T2/P1.nii.gz"], "P1"),
        (["P1_0000.nii.gz", "P1_0001.nii.gz", "P1_0002.nii.gz"], "P1"),
        (["imagesTr/kid_010_0000.nii.gz"], "kid_010"),
    ],
)
def test_a_case_without_a_name_is_called_by_its_path(images: list[str], name: str) -> None:
    assert case_name(images, NAMES) == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("kid_010_0000.nii.gz", "kid_010"),
        ("word_0000.nii.gz", "word_0000"),
        ("word_0002.nii.gz", "word_0002"),
        ("amos22_0000.nii", "amos22_0000"),
        ("kid_010_0001.nii.gz", "kid_010_0001"),
    ],
)
def test_only_the_number_of_a_channel_is_left_out(tmp_path: Path, file: str, name: str) -> None:
    assert scan_name(file) == name
    touch(tmp_path, file)
    assert [case["case"] for case in find_cases(tmp_path, ["CT"])] == [name]
    assert [case["case"] for case in find_cases(tmp_path / file, ["CT"])] == [name]


def test_a_list_keeps_names_as_it_grows_and_is_sorted_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    paths = [f"site{s}/P{p}/scan{n}.nii.gz" for s in range(3) for p in range(4) for n in range(2)]
    names: dict[str, str] = {}
    for count in (1, 5, 12, len(paths)):
        items = [{"image": path} for path in rng.permutation(paths[:count]).tolist()]
        (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
        found = {str(case["image"]): case["case"] for case in find_cases(tmp_path, ["CT"])}
        assert len(set(found.values())) == count
        assert all(found[image] == name for image, name in names.items())
        names = found


def test_a_list_of_an_earlier_version_keeps_its_names(tmp_path: Path) -> None:
    items = [{"image": f"../raw/v{i}/volume-{i}.nii", "fold": i % 2, "order": i} for i in range(4)]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items}))
    assert sorted(case["case"] for case in find_cases(tmp_path, ["CT"], fold=1)) == ["volume-1", "volume-3"]


def test_a_broken_name_does_not_stop_the_others(tmp_path: Path) -> None:
    items = [{"image": "a.nii", "case": name} for name in ("../evil", None, "x" * 300)]
    items += [{"image": "b.nii", "case": "ok"}, {"label": "c.nii"}, 3, {"image": "d.nii", "case": "Q"}]
    items += [{"image": "e.nii", "case": "q"}]
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))
    cases = find_cases(tmp_path, ["CT"])
    assert [case["case"] for case in cases if "error" not in case] == ["ok"]
    assert [case["case"] for case in cases][:3] == ["test item 1", "test item 2", "test item 3"]
    assert all(isinstance(case["case"], str) and case["case"] for case in cases)
    assert "d.nii and e.nii: several cases with the name Q, q" in cases[-1]["error"]


def test_two_cases_of_one_name_do_not_train(tmp_path: Path) -> None:
    touch(tmp_path, "A/s.nii", "B/s.nii", "l.nii")
    items = [{"image": f"{site}/s.nii", "label": "l.nii", "case": "P1"} for site in "AB"]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": items, "test": [items[0], items[0]]}))
    with pytest.raises(InputError, match=r"A/s.nii and B/s.nii: several cases with the name P1; rename the scans"):
        load_cases(tmp_path, "training")
    with pytest.raises(InputError, match=r"A/s.nii and A/s.nii: several cases with the name P1; list it once"):
        load_cases(tmp_path, "test")


def test_long_file_names_are_refused_one_by_one(tmp_path: Path) -> None:
    touch(tmp_path, *("y" * n + ".nii.gz" for n in (150, 223, 245)), "good.nii.gz")
    cases = find_cases(tmp_path, ["CT"])
    assert [case["case"] for case in cases if "error" not in case] == ["good", "y" * 150]
    assert sum("expected at most 200" in case.get("error", "") for case in cases) == 2


def test_4d_files_with_numbers_are_cases_of_their_own(tmp_path: Path) -> None:
    for i in range(3):
        for name, shape in ((f"P_000{i}", (2, 3, 4, 3)), (f"Q_000{i}", (2, 3, 4))):
            nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / f"{name}.nii.gz")
    cases = find_cases(tmp_path, NAMES)
    assert sorted(case["case"] for case in cases) == ["P_0000", "P_0001", "P_0002", "Q"]


@pytest.mark.slow
@pytest.mark.slow
def test_names_beyond_ascii_in_any_locale(tmp_path: Path) -> None:
    items = [{"image": "Bild_\u00fc.nii", "case": "Fall_\u00fc"}]
    (tmp_path / "dataset.json").write_bytes(json.dumps({"test": items}, ensure_ascii=False).encode())
    touch(tmp_path, "Bild_\u00fc.nii", "scans/P_\u00fc.nii")
    code = (
        "import sys; from pathlib import Path; from common.data import find_cases\n"
        "for folder in ('', 'scans'):\n"
        "    for case in find_cases(Path(sys.argv[1]) / folder, ['CT']):\n"
        "        assert Path(case['image']).exists(); (Path(sys.argv[1]) / case['case']).touch()\n"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, **locale})
    assert (tmp_path / "Fall_\u00fc").exists() and (tmp_path / "P_\u00fc").exists()


def test_paths_are_shown_without_detours(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    assert without_detours(tmp_path / "a" / ".." / "b.nii") == str(tmp_path / "b.nii")
    assert without_detours(tmp_path / "link" / ".." / "b.nii") == str(tmp_path / "link" / ".." / "b.nii")
    assert without_detours(Path("../a/../../b")) == "../../b"
    assert without_detours(Path("a/..")) == "."
