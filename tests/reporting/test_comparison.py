from __future__ import annotations

import csv
import math

import pytest

from common.errors import InputError, UsageError
from common.reporting import compare

NAN = math.nan
SCORES = [
    {"case": "one", "DSC": 0.5, "AP": NAN, "loss": NAN},
    {"case": "another", "DSC": 0.25, "AP": 1.0, "loss": NAN},
    {"case": "3", "DSC": 0.75, "AP": 0.0, "loss": NAN},
]


def test_runs_side_by_side() -> None:
    untrained = [{"case": name, "DSC": 0.125} for name in ("3", "another", "one")]
    assert compare({"untrained": untrained, "trained": SCORES}).splitlines() == [
        "run        cases     DSC      AP  loss",
        "--------------------------------------",
        "untrained      3  0.1250     nan   nan",
        "trained        3  0.5000  0.5000   nan",
    ]
    assert compare({"empty": []}).splitlines()[2:] == ["empty      0"]


def test_runs_without_a_common_case_are_refused() -> None:
    with pytest.raises(InputError, match="fold0 and fold1 have different cases: 1 only in fold0"):
        compare(FOLDS)
    with pytest.raises(InputError, match="no case is common to the runs fold0, fold1"):
        compare(FOLDS, common_cases=True)


FOLDS = {
    "fold0": [{"case": "a", "DSC": 0.25, "AP": NAN}],
    "fold1": [{"case": "b", "DSC": 0.5, "AP": 0.5}, {"case": "c", "DSC": 1.0, "AP": 0.25}],
}


def test_mean_and_spread_are_over_runs_not_cases() -> None:
    assert compare(FOLDS, folds=True).splitlines() == [
        "run    cases     DSC      AP",
        "----------------------------",
        "fold0      1  0.2500     nan",
        "fold1      2  0.7500  0.3750",
        "mean          0.5000  0.3750",
        "sd            0.3536     nan",
    ]


def test_scores_of_the_class_have_columns_of_their_own() -> None:
    """Also where a score of the segmentation has the same name."""
    lines = compare(FOLDS, {"fold1": {"DSC": 0.125}}, folds=True).splitlines()
    assert lines[0] == "run    cases     DSC      AP  class DSC"
    assert [line.split()[-1] for line in lines[2:]] == ["nan", "0.1250", "0.1250", "nan"]


def test_common_cases_leave_out_the_others_and_the_class() -> None:
    first = [{"case": "a", "DSC": 0.25}, {"case": "b", "DSC": 0.75}]
    lines = compare(
        {"first": first, "second": FOLDS["fold1"]}, {"first": {"accuracy": 1.0}}, common_cases=True, columns=["DSC"]
    ).splitlines()
    assert [line.split() for line in lines] == [
        ["run", "cases", "DSC"], ["-" * len(lines[0])], ["first", "1", "0.7500"], ["second", "1", "0.5000"],
    ]  # fmt: skip
    with pytest.raises(InputError, match="no column 'class accuracy'"):
        compare(
            {"first": first, "second": FOLDS["fold1"]},
            {"first": {"accuracy": 1.0}},
            common_cases=True,
            columns=["class accuracy"],
        )


def test_chosen_columns_have_the_order_asked_for() -> None:
    lines = compare(FOLDS, {"fold1": {"AUC": 0.125}}, folds=True, columns=["class AUC", "DSC", "DSC"]).splitlines()
    assert lines[0].split() == ["run", "cases", "class", "AUC", "DSC"]
    assert [line.split()[-2:] for line in lines[2:4]] == [["nan", "0.2500"], ["0.1250", "0.7500"]]


@pytest.mark.parametrize(
    ("column", "hint"), [("Dice liver", "did you mean 'Dice livers'?"), ("time", "expected one of Dice livers, ASSD")]
)
def test_an_unknown_column_is_refused(column: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        compare({"a": [{"case": "1", "Dice livers": 1.0, "ASSD": 0.0}]}, columns=[column])
    assert f"'{column}'" in str(error.value) and hint in str(error.value)


def test_csv_holds_all_decimals_and_any_name() -> None:
    runs = {'a, "b"': [{"case": "1", "Dice": 0.123456}, {"case": "2", "Dice": NAN}]}
    text = compare({**runs, "c": runs['a, "b"']}, format="csv")
    assert list(csv.reader(text.split("\n"))) == [
        ["run", "cases", "Dice"], ['a, "b"', "2", "0.123456"], ["c", "2", "0.123456"]
    ]  # fmt: skip


def test_markdown_is_a_table_of_equal_rows() -> None:
    text = compare({"a|b": SCORES, "c": SCORES}, columns=["DSC", "AP"], format="markdown")
    assert text.splitlines() == [
        "| run | cases | DSC | AP |",
        "|---|---:|---:|---:|",
        "| a\\|b | 3 | 0.5000 | 0.5000 |",
        "| c | 3 | 0.5000 | 0.5000 |",
    ]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="--format html: expected one of text, markdown, csv"):
        compare({"a": SCORES}, format="html")
