from __future__ import annotations

import math
from pathlib import Path

import pytest

from common.errors import InputError
from common.reporting import mean_scores, read_case_scores, read_scores, score_table, write_scores

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


def test_the_folder_or_the_file_gives_the_scores(tmp_path: Path) -> None:
    write_scores(SCORES[:1], tmp_path / "scores.csv")
    for place in (tmp_path, tmp_path / "scores.csv", str(tmp_path)):
        assert [row["case"] for row in read_case_scores(place)] == ["one"]
    with pytest.raises(InputError, match=r"other: no such folder; give the folder of an evaluation"):
        read_case_scores(tmp_path / "other")


def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_scores(SCORES, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="fields not in"):
        write_scores([SCORES[0], {"case": "x", "other": 1.0}], path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"case,DSC\na,high\n",
        b"case,DSC\na\n",
        b"case,DSC\na,1,2\n",
        b"epoch,loss\n1,0.5\n",
        b"case,DSC\na,1\na,0\n",
        b"case;DSC\na;0,5\n",
        b"case,DSC\na,0,5\n",
        b"case,DSC,DSC\na,1,0\n",
        b"case,DSC\n",
        b"",
    ],
    ids=[
        *("no text", "a word", "too few", "too many", "another table", "a case twice", "semicolons", "decimal commas"),
        *("a column twice", "no case", "empty"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(InputError, match=f"^{tmp_path}: no scores.csv; found an empty folder; give the --output"):
        read_scores(path)
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
