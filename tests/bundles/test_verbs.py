"""Call the verbs of ``python -m common`` in this process."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.__main__ import main
from common.reporting import write_scores
from common.verbs import VERBS, function_of

from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs ``python -m common`` in this process and returns the printed text."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["common", *arguments])
        main()
        return capsys.readouterr().out

    return run


def test_phantoms(verb: Callable, tmp_path: Path) -> None:
    assert "3 cases in data" in verb("phantoms", MMFNET.name, "--out", "data", "--cases", "3")
    listing = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert [len(listing[section]) for section in ("training", "validation", "test")] == [1, 1, 1]


def test_a_verb_refuses_an_unknown_option_first(verb: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        verb("phantoms", MMFNET.name, "--out", str(tmp_path / "data"), "--caes=4")
    message = capsys.readouterr().err
    assert message.startswith("error: unknown option --caes ") and message.endswith("did you mean --cases?\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctr"], "unknown verb doctr; did you mean doctor?"),
        (["xyz"], "unknown verb xyz; expected one of list, doctor, phantoms"),
        (["stack", "a", "b"], "stack: Missing required flags: {'out'}; see python -m common stack --help"),
        (["verify", "a", "true", "key", "c"], "verify: Could not consume arg: c; see python -m common verify --help"),
        (["verify", "a", "--load", "maybe"], "--load maybe: expected true or false"),
        (["phantoms", "x", "--out", "y", "--cases", "1.5"], "--cases 1.5: expected a whole number of at least 1"),
        (["phantoms", "x", "--out", "y", "--seed", "-1"], "--seed -1: expected a whole number from 0 to 4294967295"),
        (["datalist", "folders", "a", "b", "--folds", "abc"], "--folds abc: expected a whole number of at least 2"),
    ],
)
def test_a_wrong_call_ends_in_one_line_with_status_2(
    verb: Callable, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        verb(*arguments)
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {message}") and shown.err.count("\n") == 1 and not shown.out


@pytest.mark.parametrize("name", VERBS)
def test_help_shows_every_argument_in_full(verb: Callable, name: str) -> None:
    """Fire cuts the text of an argument at a continuation line with a colon."""
    shown = " ".join(verb(name, "--help").split())
    arguments = (inspect.getdoc(function_of(name)) or "").partition("Args:\n")[2]
    for text in re.split(r"^    \w+: ", arguments, flags=re.MULTILINE)[1:]:
        assert " ".join(text.split()) in shown


@pytest.mark.parametrize("name", VERBS)
def test_help_does_not_run_the_verb(verb: Callable, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for option in ("-h", "--help"):
        assert f"python -m common {name}" in verb(name, option)
        assert f"python -m common {name}" in verb(name, "x", option)


def test_a_call_without_a_verb_lists_all_verbs(verb: Callable) -> None:
    for arguments in ([], ["-h"], ["--help"]):
        lines = verb(*arguments).splitlines()
        assert [line.split()[0] for line in lines[2:]] == list(VERBS)


OTHER_NAMES = ["2024", "01", "a,b", "[x]", "None", "True", "0x10", "{a}", "(b)", "'q'"]


@pytest.mark.parametrize("name", ["1e3", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_NAMES)])
def test_a_path_given_to_a_verb_keeps_its_text(verb: Callable, name: str) -> None:
    verb("phantoms", MPUNET.name, "--cases", "3", f"--out={name}")
    assert Path(name, "dataset.json").exists()
    with pytest.raises(SystemExit, match=rf"^error: \S+/{re.escape(name)}/images: "):
        verb("verify", f"{name}/images")


def test_an_output_below_a_file_is_refused(verb: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=rf"^error: {tmp_path / 'file'}: a file, expected a folder; choose another"):
        verb("phantoms", MMFNET.name, "--out", str(tmp_path / "file" / "data"), "--cases=3")


def test_phantoms_of_an_unknown_bundle(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=rf"^error: unknown bundle kidney; .* {MMFNET.name}"):
        verb("phantoms", "kidney", "--out", "data")


def test_datalist(verb: Callable, tmp_path: Path, write_nifti: Callable) -> None:
    volume = np.zeros((2, 2, 2), np.float32)
    for case in "ABCDE":
        for name in ("T1", "T2", "seg"):
            write_nifti(f"scans/{case}/{case}_{name}.nii.gz", volume)
    options = {"out": "lists/dataset.json", "modalities": "T2,T1", "folds": "5", "fold": "1"}
    out = verb("datalist", "folders", "scans", *(f"--{key}={value}" for key, value in options.items()))
    assert "3 training, 1 validation, 1 test" in out
    listing = json.loads((tmp_path / "lists" / "dataset.json").read_text())
    assert listing["modality"] == {"0": "T2", "1": "T1"}
    assert re.fullmatch(r"\.\./scans/(.)/\1_T2\.nii\.gz", listing["test"][0]["image"][0])


def test_datalist_of_an_unknown_layout(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: layout brats: expected one of nnunet, folders"):
        verb(*["datalist", "brats", ".", "--out", "dataset.json"])


def test_scores(verb: Callable, tmp_path: Path) -> None:
    write_scores([{"case": "a", "Dice": 0.25}, {"case": "b", "Dice": 0.75}], tmp_path / "one" / "scores.csv")
    write_scores([{"case": "b", "Dice": 1.0}, {"case": "a", "Dice": 1.0}], tmp_path / "two" / "scores.csv")
    lines = [line.split() for line in verb("scores", "before=one", "two").splitlines()]
    assert lines[0] == ["run", "cases", "Dice"]
    assert lines[2:] == [["before", "2", "0.5000"], ["two", "2", "1.0000"]]


def test_scores_of_a_missing_folder(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such folder"):
        verb("scores", "nowhere")


def test_picture(verb: Callable, write_nifti: Callable) -> None:
    pytest.importorskip("matplotlib")
    image = write_nifti("T1.nii.gz", np.random.default_rng(0).random((12, 10, 4), np.float32))
    mask = np.zeros((12, 10, 4), np.uint8)
    mask[3:6, 3:6, 1:3] = 1
    label = write_nifti("mask.nii.gz", mask)
    arguments = ["picture", str(image), "--prediction", str(label), "--truth", str(label), "--out"]
    assert verb(*arguments, "new/picture.png").strip() == "new/picture.png"
    assert Path("new/picture.png").read_bytes().startswith(b"\x89PNG")


def test_picture_of_a_missing_mask_ends_in_one_line(verb: Callable) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match=r"^error: mask\.nii\.gz: no such file"):
        verb(*["picture", "T1.nii.gz", "--prediction", "mask.nii.gz", "--out", "picture.png"])
