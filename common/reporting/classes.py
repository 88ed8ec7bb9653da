"""Read and write the classes of cases as JSON and CSV, and their scores over all cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json, whole_file
from .calibration import calibration
from .formats import Row, format_table, read_rows
from .tables import missing_results, own_table

PROBABILITY = "probability "
SCORE_HEADER = ["name", "value"]


def write_result(case: str, result: Mapping[str, Any], path: str | Path) -> None:
    """Write a case and all that its result says as JSON, which appears once it is complete.

    A case with a class has at least ``class`` and ``probabilities``, which are rounded to 6 decimals.
    """
    content = {"case": case, **result}
    if "probabilities" in result:
        content["probabilities"] = {name: round(p, 6) for name, p in result["probabilities"].items()}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def read_result(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_result` wrote of a case with a class.

    Raises:
        InputError: no such file, or not the result of a case.
    """
    try:
        content = read_json(Path(path))
        probabilities = {name: float(p) for name, p in content["probabilities"].items()}
        return {**content, "case": str(content["case"]), "class": str(content["class"]), "probabilities": probabilities}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the class of a case as inference writes it ({error})") from error


def class_row(case: str, true: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a case's row of classes.csv: ``case``, names as ``class`` ``predicted``, ``probability NAME`` of each."""
    names = list(result["probabilities"])
    row = {"case": case, "class": names[true], "predicted": result["class"]}
    return {**row, **{PROBABILITY + name: p for name, p in result["probabilities"].items()}}


def read_classes(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of :func:`class_row` from a CSV, where ``write_scores`` has written them.

    Raises:
        InputError: no such file, no case in it, or not a table of classes.
    """
    try:
        rows: list[dict[str, Any]] = [
            {name: float(v) if name.startswith(PROBABILITY) else v for name, v in row.items()}
            for row in read_rows(path)
        ]
        _, probabilities, _ = class_probabilities(rows)
        for row, values in zip(rows, probabilities):
            if not all(0 <= p <= 1 for p in values):
                raise ValueError(f"case {row['case']}: a probability is not from 0 to 1")
        return rows
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_results(Path(path).parent, Path(path).name) from error
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a table of classes as evaluation writes it ({error})") from error


def class_probabilities(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[float]], list[int]]:
    """Return the classes, and for each row of :func:`class_row` its probabilities and the index of its true class."""
    classes = [name[len(PROBABILITY) :] for name in rows[0] if name.startswith(PROBABILITY)]
    return (
        classes,
        [[row[PROBABILITY + name] for name in classes] for row in rows],
        [classes.index(row["class"]) for row in rows],
    )


def write_class_scores(scores: Mapping[str, float], path: str | Path, made_by: Mapping[str, str] | None = None) -> None:
    """Write scores over all cases, ``name,value``; the file appears once it is complete.

    Args:
        scores: name to value.
        path: CSV.
        made_by: as for :func:`own_table`.

    Raises:
        InputError: as :func:`check_table`.
    """
    with own_table(path, made_by) as file:
        writer = csv.writer(file)
        writer.writerow(SCORE_HEADER)
        writer.writerows((name, f"{value:.6f}") for name, value in scores.items())


def read_class_scores(path: str | Path) -> dict[str, float]:
    """Read what :func:`write_class_scores` wrote.

    Raises:
        InputError: no such file, or not a table of names and values.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            header, *rows = csv.reader(file)
        if header != SCORE_HEADER:
            raise ValueError(f"columns {', '.join(header)}")
        return {name: float(value) for name, value in rows}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of class scores as evaluation writes it ({error})") from error


def class_table(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, float]) -> str:
    """Return a table with a line for each case, an empty line, and a table of the scores over all cases."""
    cases: list[Row] = [list(rows[0])]
    cases += [[v if isinstance(v, str) else float(v) for v in row.values()] for row in rows]
    over_all: list[Row] = [["all cases", "value"]]
    over_all += [[name, float(value)] for name, value in scores.items()]
    return format_table(cases) + "\n\n" + format_table(over_all)


def read_classification(folder: str | Path) -> dict[str, float]:
    """Return the scores of the class of an evaluation, and the calibration of its probabilities.

    Args:
        folder: that of the evaluation; it may lack ``class_scores.csv``, ``classes.csv`` or both.

    Raises:
        InputError: a file is not as evaluation writes it.
    """
    path = Path(folder)
    scores = read_class_scores(path / "class_scores.csv") if (path / "class_scores.csv").exists() else {}
    if (path / "classes.csv").exists():
        _, probabilities, true = class_probabilities(read_classes(path / "classes.csv"))
        scores |= calibration(probabilities, true)
    return scores
