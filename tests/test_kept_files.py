"""Test that a verb of the command line replaces only files that it wrote itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.__main__ import main
from common.reporting import class_row, write_scores
from common.verbs import VERBS, function_of

BUNDLE = "liver_ct_mpunet"
NOTES = b"two years of work\n"

# verb -> a call, and files that it would write. A user may already have a file at each of these paths.
WRITES = {
    "phantoms": (
        ["phantoms", BUNDLE, "--cases", "3", "--out", "out"],
        ["out/notes.txt", "out/dataset.json", "out/images/case_000.nii.gz", "out/labels/case_000.nii.gz"],
    ),
    "datalist": (
        ["datalist", "nnunet", "--root", "set", "--modalities", "CT", "--folds", "2", "--out", "out/dataset.json"],
        ["out/dataset.json"],
    ),
    "intensity": (["intensity", "set"], ["set/intensity.json"]),
    "stack": (["stack", "a.nii.gz", "b.nii.gz", "--out", "out/case.nii.gz"], ["out/case.nii.gz"]),
    "unstack": (["unstack", "both.nii.gz", "--out", "out"], ["out/both_0000.nii.gz", "out/both_0001.nii.gz"]),
    "picture": (["picture", "a.nii.gz", "--prediction", "mask.nii.gz", "--out", "out/a.png"], ["out/a.png"]),
    "plots": (
        ["plots", "--classes", "classes.csv", "--scores", "scores.csv", "--out", "out"],
        ["out/roc.png", "out/bland_altman.png"],
    ),
    "report": (["report", ".", "--out", "out/report.html"], ["out/report.html"]),
    "pack": (
        ["pack", BUNDLE, "--weights", "model.pt", "--out", "out"],
        [f"out/{BUNDLE}_v0.1.0.zip", f"out/{BUNDLE}/notes.txt"],
    ),
}
READS = {"doctor", "list", "scores", "series", "verify"}
TESTED_ELSEWHERE = {"crossval", "nnunet", "plan"}  # with the data sets that they need

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI warns for every config


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs a verb in the temporary folder and returns its error, or "" without an error."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["common", *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            message = ended.code if isinstance(ended.code, str) else capsys.readouterr().err
            return message.strip()
        return ""

    return run


@pytest.fixture
def inputs(tmp_path: Path, write_nifti: Callable) -> None:
    """Write small inputs for all verbs into the temporary folder."""
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 99, (8, 7, 6), dtype=np.int16), np.zeros((8, 7, 6), np.uint8)
    mask[2:5, 2:6, 1:4] = 1
    for name in ("a", "b", *(f"set/imagesTr/c{i}" for i in range(4))):
        write_nifti(f"{name}.nii.gz", image)
    for name in ("mask", *(f"set/labelsTr/c{i}" for i in range(4))):
        write_nifti(f"{name}.nii.gz", mask)
    write_nifti("both.nii.gz", np.stack([image, image], 3))
    rows = [{"image": f"imagesTr/c{i}.nii.gz", "label": f"labelsTr/c{i}.nii.gz"} for i in range(4)]
    lists = {"training": rows[:2], "validation": rows[2:3], "test": rows[3:]}
    (tmp_path / "set" / "dataset.json").write_text(repr(lists).replace("'", '"'))
    torch.save({"w": torch.ones(1)}, tmp_path / "model.pt")
    result = {"class": "b", "probabilities": {"a": 0.25, "b": 0.75}}
    write_scores([class_row(str(i), i, result) for i in range(2)], tmp_path / "classes.csv")
    volumes = [{"case": str(i), "volume (ml)": 1.0 + i, "true volume (ml)": 2.0} for i in range(2)]
    write_scores(volumes, tmp_path / "scores.csv")


def test_every_verb_is_listed_as_reading_or_writing() -> None:
    assert VERBS.keys() == WRITES.keys() | READS | TESTED_ELSEWHERE
    for name in READS:
        assert "out" not in inspect.signature(function_of(name)).parameters


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", sorted(WRITES))
def test_a_users_file_is_kept(verb: Callable, tmp_path: Path, name: str) -> None:
    call, files = WRITES[name]
    for path in [tmp_path / file for file in files]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(NOTES)
        message = verb(*call)
        assert message.startswith("error: ") and len(message.splitlines()) == 1
        assert path.read_bytes() == NOTES
        path.unlink()
        if path.parent.name == BUNDLE:
            path.parent.rmdir()


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", [name for name, (call, _) in WRITES.items() if "--out" in call])
def test_a_users_file_in_place_of_a_folder_is_kept(verb: Callable, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").write_bytes(NOTES)
    message = verb(*WRITES[name][0])
    assert message.startswith("error: ") and len(message.splitlines()) == 1 and "out" in message
    assert (tmp_path / "out").read_bytes() == NOTES


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", ["datalist", "stack", "picture"])
def test_a_users_folder_in_place_of_a_file_is_kept(verb: Callable, tmp_path: Path, name: str) -> None:
    call, (file,) = WRITES[name]
    (tmp_path / file).mkdir(parents=True)
    (tmp_path / file / "notes.txt").write_bytes(NOTES)
    message = verb(*call)
    assert message.startswith("error: ") and len(message.splitlines()) == 1 and file in message
    assert (tmp_path / file / "notes.txt").read_bytes() == NOTES


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", ["datalist", "intensity", "stack", "unstack", "picture", "plots"])
def test_own_files_are_replaced_only_if_unchanged(verb: Callable, tmp_path: Path, name: str) -> None:
    call, files = WRITES[name]
    assert verb(*call) == ""
    before = {file: (tmp_path / file).read_bytes() for file in files}
    message = verb(*call)
    assert message == "" if name not in ("stack", "unstack") else "already exists and is not overwritten" in message
    assert {file: (tmp_path / file).read_bytes() for file in before} == before
    for file in before:
        with (tmp_path / file).open("ab") as changed:
            changed.write(NOTES)
        content = (tmp_path / file).read_bytes()
        assert verb(*call).startswith("error: ")
        assert (tmp_path / file).read_bytes() == content
        (tmp_path / file).write_bytes(before[file])


def test_a_picture_needs_a_file_name_with_png(verb: Callable, tmp_path: Path) -> None:
    (tmp_path / "figure1.png").write_bytes(NOTES)
    for out in ("figure1", "a.nii.gz", "notes.txt"):
        message = verb("picture", "a.nii.gz", "--prediction", "mask.nii.gz", "--out", out)
        assert message.startswith(f"error: {out}: expected ") and ".png" in message
