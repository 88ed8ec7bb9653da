from __future__ import annotations

import math
from pathlib import Path

import pytest

from common.errors import InputError
from common.results import compare, mean_scores, read_scores, score_table, write_scores

NAN = math.nan
SCORES = [
    {"case": "one", "DSC": 0.5, "AP": NAN, "loss": NAN},
    {"case": "another", "DSC": 0.25, "AP": 1.0, "loss": NAN},
    {"case": "3", "DSC": 0.75, "AP": 0.0, "loss": NAN},
]


def test_scores_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    write_scores(SCORES, path)
    assert path.read_text().splitlines()[:2] == ["case,DSC,AP,loss", "one,0.500000,nan,nan"]
    rows = read_scores(path)
    assert [row["case"] for row in rows] == ["one", "another", "3"]
    assert [row["DSC"] for row in rows] == [0.5, 0.25, 0.75]
    assert math.isnan(rows[0]["AP"])
    assert sorted(p.name for p in path.parent.iterdir()) == ["made_by.json", "scores.csv"]


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_scores(SCORES, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="fields not in"):
        write_scores([SCORES[0], {"case": "x", "other": 1.0}], path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [None, b"\xff\xfe\x00", b"case,DSC\na,high\n", b"case,DSC\na\n", b"case,DSC\na,1,2\n", b"epoch,loss\n1,0.5\n"],
    ids=["no file", "no text", "a word", "too few", "too many", "another table"],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}: not a table of scores"):
        read_scores(path)


def test_means_are_of_the_cases_where_a_score_is_defined() -> None:
    means = mean_scores(SCORES)
    assert (means["DSC"], means["AP"]) == (0.5, 0.5)
    assert math.isnan(means["loss"])
    assert mean_scores([]) == {}


def test_table() -> None:
    assert score_table(SCORES).splitlines() == [
        "case        DSC      AP  loss",
        "-----------------------------",
        "one      0.5000     nan   nan",
        "another  0.2500  1.0000   nan",
        "3        0.7500  0.0000   nan",
        "mean     0.5000  0.5000   nan",
        "sd       0.2500  0.7071   nan",
    ]


def test_a_single_case_has_no_deviation() -> None:
    assert score_table(SCORES[:1]).splitlines()[-1].split() == ["sd", "nan", "nan", "nan"]


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
