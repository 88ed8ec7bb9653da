from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InputError
from common.reporting import (
    class_probabilities,
    class_row,
    class_table,
    read_class_scores,
    read_classes,
    read_classification,
    read_result,
    write_class_scores,
    write_result,
    write_scores,
)

RESULT = {"class": "CAP", "probabilities": {"COVID-19": 0.25, "CAP": 0.75}}
ROWS = [
    class_row("a", 0, RESULT),
    class_row("b", 1, {"class": "COVID-19", "probabilities": {"COVID-19": 0.625, "CAP": 0.375}}),
]


def test_a_row_names_the_classes() -> None:
    assert ROWS[0] == {
        "case": "a", "class": "COVID-19", "predicted": "CAP", "probability COVID-19": 0.25, "probability CAP": 0.75,
    }  # fmt: skip
    assert class_probabilities(ROWS) == (["COVID-19", "CAP"], [[0.25, 0.75], [0.625, 0.375]], [0, 1])


def test_tables_are_read_as_written(tmp_path: Path) -> None:
    write_scores(ROWS, tmp_path / "classes.csv")
    assert read_classes(tmp_path / "classes.csv") == ROWS
    scores = {"accuracy": 0.5, "AUC": math.nan}
    write_class_scores(scores, tmp_path / "new" / "class_scores.csv")
    assert (tmp_path / "new" / "class_scores.csv").read_text().split() == ["name,value", "accuracy,0.500000", "AUC,nan"]
    found = read_class_scores(tmp_path / "new" / "class_scores.csv")
    assert found["accuracy"] == 0.5 and math.isnan(found["AUC"])


def test_an_evaluation_may_lack_each_file_of_classes(tmp_path: Path) -> None:
    assert read_classification(tmp_path) == {}
    write_scores(ROWS, tmp_path / "classes.csv")
    calibrated = {"Brier": pytest.approx((0.75**2 + 0.625**2) / 2), "ECE": pytest.approx((0.75 + 0.625) / 2)}
    assert read_classification(tmp_path) == calibrated
    write_class_scores({"accuracy": 0.0}, tmp_path / "class_scores.csv")
    assert read_classification(tmp_path) == {"accuracy": 0.0, **calibrated}


def test_a_result_is_read_as_written(tmp_path: Path) -> None:
    lungs = {"lungs": {"first": [1, 2, 3], "last": [4, 5, 6]}}
    write_result(
        "a", {**RESULT, "probabilities": {"COVID-19": 1 / 3, "CAP": 2 / 3}, **lungs}, tmp_path / "new" / "a.json"
    )
    rounded = {"class": "CAP", "probabilities": {"COVID-19": 0.333333, "CAP": 0.666667}}
    assert read_result(tmp_path / "new" / "a.json") == {"case": "a", **rounded, **lungs}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_result_without_a_class_is_written_but_not_read(tmp_path: Path) -> None:
    write_result("a", {"lungs": {"first": [1, 2, 3]}}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"case": "a", "lungs": {"first": [1, 2, 3]}}
    with pytest.raises(InputError, match="not the class of a case"):
        read_result(tmp_path / "a.json")


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a_class.json"
    write_result("a", RESULT, path)
    with pytest.raises(TypeError):
        write_result("a", {"class": {1, 2}, "probabilities": {}}, path)
    assert read_result(path)["class"] == "CAP"


def test_table() -> None:
    assert class_table(ROWS, {"accuracy": 0.0, "macro recall": math.nan}).splitlines() == [
        "case     class  predicted  probability COVID-19  probability CAP",
        "----------------------------------------------------------------",
        "a     COVID-19        CAP                0.2500           0.7500",
        "b          CAP   COVID-19                0.6250           0.3750",
        "",
        "all cases      value",
        "--------------------",
        "accuracy      0.0000",
        "macro recall     nan",
    ]


OTHERS = {
    "no file": None,
    "empty": "",
    "another table": "case,DSC\na,0.5\n",
    "a word": "name,value\naccuracy,high\n",
    "no class of these": "case,class,predicted,probability a\nx,b,a,1.0\n",
    "no probabilities": "case,class,predicted\nx,b,a\n",
    "above one": "case,class,predicted,probability a\nx,a,a,1.5\n",
    "not a number": "case,class,predicted,probability a\nx,a,a,nan\n",
    "too few": "case,class,predicted,probability a\nx,a\n",
    "a list": "[]",
    "no probability": json.dumps({"case": "a", "class": "b", "probabilities": {"b": "high"}}),
    "no names": json.dumps({"case": "a", "class": "b", "probabilities": [1, 2]}),
}


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (read_classes, "table of classes"),
        (read_class_scores, "table of class scores"),
        (read_result, "class of a case"),
    ],
    ids=["classes", "scores", "result"],
)
@pytest.mark.parametrize("content", OTHERS)
def test_another_file_is_refused(tmp_path: Path, read: Callable, kind: str, content: str) -> None:
    path = tmp_path / "file"
    if OTHERS[content] is not None:
        path.write_text(OTHERS[content])
    expected = f"^{path}: not (a|the) {kind}"
    if content == "no file" and read is read_classes:
        expected = f"^{tmp_path}: no file; found an empty folder; give the --output_dir of an eval"
    with pytest.raises(InputError, match=expected):
        read(path)
