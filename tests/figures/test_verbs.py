"""Test commands that show results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.__main__ import main
from common.reporting import class_row, write_class_scores, write_result, write_scores


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["common", *arguments])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def folds(tmp_path: Path) -> None:
    for fold, dice in enumerate((0.5, 0.75)):
        write_scores([{"case": "a", "Dice": dice}], tmp_path / f"fold{fold}" / "scores.csv")
        write_class_scores({"accuracy": 0.25 * fold}, tmp_path / f"fold{fold}" / "class_scores.csv")
    write_scores([{"case": "a", "Dice": 1.0}], tmp_path / "seg" / "scores.csv")


@pytest.mark.usefixtures("folds")
def test_comparison_has_the_scores_of_the_class(verb: Callable) -> None:
    lines = [line.split() for line in verb("scores", "one=fold0", "fold1", "seg").splitlines()]
    assert lines[0] == ["run", "cases", "Dice", "class", "accuracy"]
    assert lines[2:] == [
        ["one", "1", "0.5000", "0.0000"],
        ["fold1", "1", "0.7500", "0.2500"],
        ["seg", "1", "1.0000", "nan"],
    ]


@pytest.mark.usefixtures("folds")
def test_folds_get_mean_and_standard_deviation(verb: Callable) -> None:
    lines = [line.split() for line in verb("scores", "fold0", "fold1", "--folds").splitlines()]
    assert lines[4:] == [["mean", "0.6250", "0.1250"], ["sd", "0.1768", "0.1768"]]
    assert verb("scores", "fold0", "fold1", "--folds", "true").splitlines()[4].startswith("mean")
    with pytest.raises(SystemExit, match=r"^2$"):
        verb("scores", "--folds", "fold0", "fold1")


def test_runs_on_different_cases_are_refused(verb: Callable, tmp_path: Path) -> None:
    for run, cases in {"one": "abcde", "two": "aef"}.items():
        write_scores(
            [{"case": case, "Dice": 0.5 if case == "a" else 1.0} for case in cases], tmp_path / run / "scores.csv"
        )
        write_class_scores({"accuracy": 0.5}, tmp_path / run / "class_scores.csv")
    with pytest.raises(SystemExit) as refused:
        verb("scores", "one", "two")
    assert str(refused.value) == (
        "error: one and two have different cases: 3 only in one (b, c, d); evaluate the same cases, or add "
        "--common_cases true, or --folds true for folds"
    )
    with pytest.raises(SystemExit, match=r"two and one have different cases: 1 only in two \(f\)"):
        verb("scores", "two", "one")
    lines = [line.split() for line in verb("scores", "one", "two", "--common_cases", "true").splitlines()]
    assert [lines[0], *lines[2:]] == [["run", "cases", "Dice"], ["one", "2", "0.7500"], ["two", "2", "0.7500"]]


@pytest.mark.usefixtures("folds")
def test_runs_with_equal_names_are_refused(verb: Callable) -> None:
    with pytest.raises(SystemExit, match=r"^error: 2 runs of 1 names: a=fold0, a=fold1; give each its own"):
        verb("scores", "a=fold0", "a=fold1")
    with pytest.raises(SystemExit, match=r"^error: no runs; give folders of evaluations"):
        verb("scores")


def test_plots_are_written(verb: Callable, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [class_row(n, t, {"class": "b", "probabilities": {"a": 0.25, "b": 0.75}}) for n, t in (("x", 0), ("y", 1))]
    write_scores(rows, tmp_path / "classes.csv")
    assert verb("plots", "--classes", "classes.csv", "--out", "plots") == "plots/roc.png\n"
    assert (tmp_path / "plots" / "roc.png").read_bytes().startswith(b"\x89PNG")

    volumes = [{"case": n, "volume (ml)": v, "true volume (ml)": 2.0} for n, v in (("x", 1.0), ("y", 4.0))]
    write_scores(volumes, tmp_path / "scores.csv")
    assert verb("plots", "--scores", "scores.csv", "--out", "plots") == "plots/bland_altman.png\n"
    both = verb("plots", "--classes", ".", "--scores", ".", "--out", "both")
    assert both == "both/roc.png\nboth/bland_altman.png\n"
    with pytest.raises(SystemExit, match=r"^error: nothing to draw; give --classes, --scores or both"):
        verb("plots", "--out", "plots")


@pytest.mark.usefixtures("folds")
@pytest.mark.parametrize("arguments", [("scores", "."), ("plots", "--scores", ".", "--out", "p")])
def test_folder_without_results_names_the_one_below(verb: Callable, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match=r"^error: \.: no scores\.csv; found fold0, fold1, seg; give fold0, which has"):
        verb(*arguments)
    with pytest.raises(SystemExit, match=r"^error: runs: no such folder; give the folder of an evaluation"):
        verb(*(argument if argument != "." else "runs" for argument in arguments))


def test_picture_shows_heat_and_class(verb: Callable, write_nifti: Callable, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = str(write_nifti("CT.nii.gz", np.random.default_rng(0).random((12, 10, 4), np.float32)))
    mask = str(write_nifti("mask.nii.gz", np.ones((12, 10, 4), np.uint8)))
    write_result("a", {"class": "b", "probabilities": {"b": 1.0}}, tmp_path / "a_class.json")
    verb("picture", image, "--prediction", mask, "--out", "plain.png")
    verb("picture", image, "--prediction", mask, "--out", "all.png", "--heat", image, "--result", "a_class.json")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "all.png").read_bytes()
    with pytest.raises(SystemExit, match=r"^error: none\.json: not the class of a case"):
        verb("picture", image, "--prediction", mask, "--out", "none.png", "--result", "none.json")
