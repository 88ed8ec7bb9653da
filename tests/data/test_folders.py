"""Find scans in folders with files of operating systems, links, and files that this user may not read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from common.data import find_cases, load_cases
from common.data.datalist import write_datalist
from common.data.folders import scans_below
from common.data.volumes import read_volume
from common.errors import InputError

from .layouts import touch

DEBRIS_OF_SYSTEMS = (
    "__MACOSX/._P1.nii.gz",
    "__MACOSX/P1/seg.nii.gz",
    "@eaDir/P1.nii.gz/SYNO@.nii.gz",
    "lost+found/#1.nii",
    "$RECYCLE.BIN/S-1/$R.nii.gz",
    "System Volume Information/a.nii",
    "._P1.nii.gz",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".git/annex/a.nii",
)
LABELS = {
    "folders": "{0}/ct.nii.gz {0}/seg.nii.gz",
    "nnunet": "imagesTr/{0}.nii.gz labelsTr/{0}.nii.gz",
    "msd_task03": "imagesTr/{0}.nii.gz labelsTr/{0}.nii.gz",
    "brats2020": "{0}/{0}_ct.nii.gz {0}/{0}_seg.nii.gz",
    "lits": "a/volume-{1}.nii segmentation-{1}.nii",
    "mosmed": "studies/CT-1/study_{1}.nii.gz masks/study_{1}_mask.nii.gz",
    "covid_ct_seg": "COVID-19-CT-Seg_20cases/coronacases_{1}.nii.gz Infection_Mask/coronacases_{1}.nii.gz",
}


def files(layout: str) -> list[str]:
    return [name for i in range(4) for name in LABELS[layout].format(f"P{i}", i).split()]


@pytest.mark.parametrize("layout", LABELS)
def test_a_layout_ignores_files_of_operating_systems(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "in"
    touch(root, *files(layout))
    expected = write_datalist(layout, root, tmp_path / "a" / "dataset.json", ["CT"], folds=2)
    for folder in sorted({path.parent for path in root.rglob("*.nii*")} | {root}):
        touch(folder, *DEBRIS_OF_SYSTEMS)
    assert write_datalist(layout, root, tmp_path / "b" / "dataset.json", ["CT"], folds=2) == expected
    assert len([case for cases in expected.values() for case in cases]) == 4


def test_files_of_operating_systems_beside_scans_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, *DEBRIS_OF_SYSTEMS, "P1/ct.nii.gz", "P2.nii.gz", *(f"P1/{name}" for name in DEBRIS_OF_SYSTEMS))
    cases = find_cases(tmp_path, ["CT"])
    assert {case["case"]: case.get("error") for case in cases} == {"P1": None, "P2": None}


@pytest.mark.parametrize("layout", LABELS)
def test_links_keep_their_names(tmp_path: Path, layout: str) -> None:
    root, blobs = tmp_path / "in", tmp_path / "blobs"
    touch(root, *files(layout))
    plain = write_datalist(layout, root, tmp_path / "lists" / "dataset.json", ["CT"], folds=2)
    blobs.mkdir()
    for number, name in enumerate(files(layout)):
        (root / name).rename(blobs / f"sha{number}")
        (root / name).symlink_to(blobs / f"sha{number}")
    (tmp_path / "linked").symlink_to("lists")  # the list lies behind a link, and so does the data set
    (tmp_path / "set").symlink_to("in")
    found = write_datalist(layout, tmp_path / "set", tmp_path / "linked" / "dataset.json", ["CT"], folds=2)
    assert found == plain
    for section in ("training", "validation", "test"):
        for case in load_cases(tmp_path / "linked", section, ["CT"]):
            assert Path(case["image"]).is_symlink()
    (blobs / "sha5").unlink()
    with pytest.raises(InputError, match=r"a broken link to .*sha5; get the file, or remove"):
        write_datalist(layout, root, tmp_path / "c.json", ["CT"], folds=2)


def test_a_broken_link_is_named_and_stops_no_other(tmp_path: Path) -> None:
    touch(tmp_path, "a/P1.nii.gz", "a/P3/ct.nii.gz", "P4.nii")
    for name in ("a/P2.nii.gz", "a/P5/ct.nii", "a/P6/ct.mha"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to("../.git/annex/XYZ")
    (tmp_path / "a" / "P3" / "notes.json").symlink_to("nowhere")  # is not read
    cases = find_cases(tmp_path / "a", ["CT"])
    assert [case["case"] for case in cases if "error" not in case] == ["P1", "P3"]
    for case in cases:
        assert "error" not in case or "a broken link to ../.git/annex/XYZ" in case["error"]
    with pytest.raises(InputError, match=r"P2.nii.gz: a broken link"):
        find_cases(tmp_path / "a" / "P2.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"test": ["a/P2.nii.gz", "P4.nii"]}))
    listed = find_cases(tmp_path, ["CT"])
    assert "P2.nii.gz: a broken link" in listed[0]["error"] and "error" not in listed[1]


def test_a_series_with_a_broken_link_is_not_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    for i in range(3):
        (tmp_path / "P1" / f"CT.{i}").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "P1" / "CT.3").symlink_to("nowhere")
    (case,) = find_cases(tmp_path, ["CT"])
    assert "CT.3: a broken link to nowhere" in case["error"]


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "in", "P1/a.nii", "P2/b.nii")
    touch(tmp_path / "out", "c.nii")
    (tmp_path / "in" / "again").symlink_to("P1")
    (tmp_path / "in" / "P2" / "loop").symlink_to("..")
    (tmp_path / "in" / "more").symlink_to("../out")
    (tmp_path / "in" / "more2").symlink_to("../out")
    found = [path.relative_to(tmp_path / "in").as_posix() for path in scans_below(tmp_path / "in")]
    assert found == ["P1/a.nii", "P2/b.nii", "more/c.nii"]


def test_a_folder_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "P1/ct.nii.gz", "P2/ct.nii.gz")
    listing = Path.iterdir

    def forbidden(folder: Path) -> object:
        if folder.name == "P1":
            raise PermissionError(13, os.strerror(13), str(folder))
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    first, second = find_cases(tmp_path, ["CT"])
    assert first["case"] == "P1" and first["error"].startswith(f"{tmp_path / 'P1'}: permission denied; ")
    assert second["case"] == "P2" and "error" not in second
    for layout in ("folders", "lits", "brats2020"):
        with pytest.raises(InputError, match=r"P1: permission denied; "):
            write_datalist(layout, tmp_path, tmp_path / "out.json", ["CT"], folds=2)


def test_links_that_lead_nowhere_cost_no_other_case(tmp_path: Path) -> None:
    (tmp_path / "good.nii.gz").write_bytes(b"")
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "missing.nii.gz")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    cases = {case["case"]: case for case in find_cases(tmp_path, ["CT"])}
    assert {"good", "gone"} <= cases.keys() and "error" not in cases["good"]


def test_files_in_other_formats_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.mgz", "c.hdr", "c.img", "d.nii.bz2", "notes.txt", ".e.mgz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"dataset\.json; found b\.mgz, c\.hdr, c\.img and 1 more, so convert or"):
        find_cases(tmp_path)
    (tmp_path / "a.nii").write_bytes(b"x")
    assert [case["case"] for case in find_cases(tmp_path)] == ["a"]
    assert "4 files are not read: b.mgz, c.hdr, c.img and 1 more; expected .nii, .nii.gz" in caplog.text


def test_a_pipe_named_like_a_scan_is_a_failed_case(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii.gz")
    (case,) = find_cases(tmp_path, ["CT"])
    with pytest.raises(InputError, match=r"a\.nii\.gz: a device or a pipe"):
        read_volume(Path(case["image"]))
