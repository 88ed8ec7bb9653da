"""Scores of cases: as CSV, as a table, side by side for several runs."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .tables import own_table

SHOWN = 3  # cases in a message


def write_scores(
    scores: Sequence[Mapping[str, Any]], path: str | Path, made_by: Mapping[str, str] | None = None
) -> None:
    """Write a row for each case, ``case`` first; the file appears once it is complete.

    Args:
        scores: rows of the cases; a score that is not defined is ``nan``.
        path: CSV.
        made_by: as for :func:`own_table`.

    Raises:
        InputError: as :func:`check_table`.
    """
    with own_table(path, made_by) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(scores[0]))
        writer.writeheader()
        writer.writerows({k: v if isinstance(v, str) else f"{v:.6f}" for k, v in row.items()} for row in scores)


def read_scores(path: str | Path) -> list[dict[str, Any]]:
    """Read what :func:`write_scores` wrote.

    Raises:
        InputError: no such file, or not a table of scores.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return [{"case": row.pop("case"), **{k: float(v) for k, v in row.items()}} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a table of scores as evaluation writes it ({error})") from error


def mean_scores(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each score over the cases where it is defined; NaN where it is for none."""
    return {name: _mean(values) for name, values in _columns(scores).items()}


def score_table(scores: Sequence[Mapping[str, Any]]) -> str:
    """A line per case, then mean and standard deviation over the cases where a score is defined."""
    columns = _columns(scores)
    rows = [[row["case"], *(f"{row[name]:.4f}" for name in columns)] for row in scores]
    rows.append(["mean", *(f"{_mean(v):.4f}" for v in columns.values())])
    rows.append(["sd", *(f"{_deviation(v):.4f}" for v in columns.values())])
    return aligned([["case", *columns], *rows])


def compare(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    class_scores: Mapping[str, Mapping[str, float]] | None = None,
    folds: bool = False,
    common_cases: bool = False,
) -> str:
    """Return the mean scores of several runs, a line each, such as the rows of an ablation table.

    Args:
        runs: scores of the cases of each run.
        class_scores: scores over all cases of some of the runs; their columns are called ``class NAME``.
        folds: the runs are folds, each with its own cases. Two more lines give the mean and the standard deviation over
            the runs where a score is defined.
        common_cases: the means are over the cases that all runs have. Where a run has others too, ``class_scores``,
            which count them, are left out.

    Raises:
        InputError: without these two, the runs have different cases; or no case is common to all.
    """
    if not folds:
        cases = {run: {row["case"] for row in scores} for run, scores in runs.items()}
        common = set.intersection(*cases.values()) if cases else set()
        if any(names != common for names in cases.values()):
            if not common_cases:
                raise InputError(_different_cases(cases))
            if not common:
                raise InputError(f"no case is common to the runs {', '.join(runs)}; evaluate them on the same cases")
            runs = {run: [row for row in scores if row["case"] in common] for run, scores in runs.items()}
            class_scores = None
    means = {
        run: {**mean_scores(scores), **named_class_scores((class_scores or {}).get(run, {}))}
        for run, scores in runs.items()
    }
    names = list(dict.fromkeys(name for values in means.values() for name in values))
    rows = [["run", "cases", *names]]
    for run, values in means.items():
        rows.append([run, str(len(runs[run])), *(f"{values.get(name, math.nan):.4f}" for name in names)])
    if folds:
        defined = _columns([{name: values.get(name, math.nan) for name in names} for values in means.values()])
        rows.append(["mean", "", *(f"{_mean(v):.4f}" for v in defined.values())])
        rows.append(["sd", "", *(f"{_deviation(v):.4f}" for v in defined.values())])
    return aligned(rows)


def _different_cases(cases: Mapping[str, set[str]]) -> str:
    """Return a line about two runs of which one has cases that the other lacks."""
    for run, names in cases.items():
        for other, others in cases.items():
            if lacking := sorted(names - others):
                shown = ", ".join(lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
                return (
                    f"{run} and {other} have different cases: {len(lacking)} only in {run} ({shown}); evaluate the "
                    "same cases, or add --common_cases true, or --folds true for folds"
                )
    raise AssertionError("the same cases")


def named_class_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores of the class, called ``class NAME`` beside those of the segmentation, whose names may be the same."""
    return {f"class {name}": value for name, value in scores.items()}


def _columns(scores: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    names = [name for name in (scores[0] if scores else {}) if name != "case"]
    return {name: [row[name] for row in scores if not math.isnan(row[name])] for name in names}


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of fewer than two values or of infinite ones."""
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first to the left, with a line under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)
