"""Compare runs with ``python -m common scores``."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from common.__main__ import main
from common.reporting import class_row, write_class_scores, write_scores


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Write the runs ``one`` and ``two``, and return the call of the verb, which returns what it prints."""
    monkeypatch.chdir(tmp_path)
    for run, better in (("one", 0.0), ("two", 0.25)):
        rows = [{"case": f"P{i}", "Dice liver": i / 16 + better, "volume (ml)": 100.0 + i} for i in range(8)]
        write_scores(rows, tmp_path / run / "scores.csv")
        result = {"class": "sick", "probabilities": {"well": 0.25 - better, "sick": 0.75 + better}}
        write_scores([class_row(f"P{i}", 1, result) for i in range(8)], tmp_path / run / "classes.csv")
        write_class_scores({"accuracy": 1.0}, tmp_path / run / "class_scores.csv")

    def run_verb(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["common", "scores", *arguments])
        main()
        return capsys.readouterr().out

    return run_verb


def test_classes_have_their_calibration(scores: Callable) -> None:
    lines = list(csv.DictReader(scores("a=one", "b=two", "--format", "csv").splitlines()))
    assert [*lines[0]] == [
        "run", "cases", "Dice liver", "volume (ml)", "class accuracy", "class Brier", "class ECE"
    ]  # fmt: skip
    assert [(float(line["class Brier"]), float(line["class ECE"])) for line in lines] == [(0.0625, 0.25), (0, 0)]


def test_columns_are_named_with_commas_between(scores: Callable) -> None:
    out = scores("a=one", "b=two", "--columns", "volume (ml), Dice liver", "--format=csv")
    assert out.splitlines() == [
        "run,cases,volume (ml),Dice liver",
        "a,8,103.500000,0.218750",
        "b,8,103.500000,0.468750",
    ]
    assert scores("a=one", "--columns", "Dice liver", "--format", "markdown").splitlines() == [
        "| run | cases | Dice liver |", "|---|---:|---:|", "| a | 8 | 0.2188 |"
    ]  # fmt: skip


@pytest.mark.parametrize("switch", [["--paired"], ["--paired", "true"]])
def test_runs_are_compared_in_pairs(scores: Callable, switch: list[str]) -> None:
    better, equal = csv.DictReader(scores("a=one", "b=two", *switch, "--format", "csv").splitlines())
    assert (better["score"], better["first"], better["second"]) == ("Dice liver", "a", "b")
    assert [float(better[name]) for name in ("difference", "p", "p Holm")] == [0.25, 2 / 2**8, 2 / 2**8]
    assert (equal["score"], equal["p"], equal["p Holm"]) == ("volume (ml)", "nan", "nan")
    assert "all differences are 0" in equal["note"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["two", "--columns", "Dice livr"], 1, "no column 'Dice livr' in the runs; did you mean 'Dice liver'?"),
        (["two", "--format", "html"], 2, "--format html: expected one of text, markdown, csv"),
        (["two", "--paired", "--folds"], 2, "--paired --folds: folds have different cases"),
        (["two", "--paired", "--columns", "class ECE"], 1, "no column 'class ECE' in the scores of each case"),
        (["--paired"], 2, "1 run; expected two or more"),
        (["other", "--paired"], 1, "one and other have different cases: 7 only in one"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    scores: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str], status: int, message: str
) -> None:
    write_scores([{"case": "P0", "Dice liver": 1.0}], tmp_path / "other" / "scores.csv")
    with pytest.raises(SystemExit) as error:
        scores("one", *options)
    said = capsys.readouterr().err if error.value.code == 2 else error.value.code
    assert (error.value.code == 2) == (status == 2)
    assert said.startswith("error: ") and message in said
