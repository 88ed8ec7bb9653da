"""Read and write the scores of cases, and return their means and their table."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .formats import Row, format_table, read_rows
from .nnunet_summary import SUMMARY, read_summary
from .tables import missing_results, own_table

TABLE = "scores.csv"


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
    with own_table(path, made_by) as file:
        writer = csv.DictWriter(file, fieldnames=list(scores[0]))
        writer.writeheader()
        writer.writerows({k: v if isinstance(v, str) else f"{v:.6f}" for k, v in row.items()} for row in scores)


def read_scores(path: str | Path) -> list[dict[str, Any]]:
    """Read what :func:`write_scores` wrote.

    Raises:
        InputError: no such file, not a table of scores, no case, or a case that occurs twice.
    """
    try:
        return [{"case": row.pop("case"), **{k: float(v) for k, v in row.items()}} for row in read_rows(path)]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing_results(Path(path).parent, Path(path).name) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a table of scores as evaluation writes it ({error})") from error


def read_case_scores(evaluation: str | Path) -> list[dict[str, Any]]:
    """Return the scores of the cases of an evaluation or a cross-validation, or of nnU-Net's evaluation.

    Args:
        evaluation: as for :func:`scores_file`.

    Raises:
        InputError: as :func:`read_scores` and :func:`read_summary`.
    """
    file = scores_file(evaluation)
    return read_summary(file) if file.suffix == Path(SUMMARY).suffix else read_scores(file)


def scores_file(evaluation: str | Path) -> Path:
    """Return the file with the scores of the cases.

    Args:
        evaluation: folder with ``scores.csv``, or else nnU-Net's ``summary.json``; or the file itself.
    """
    path = Path(evaluation)
    if path.suffix in (Path(TABLE).suffix, Path(SUMMARY).suffix) and not path.is_dir():
        return path
    return path / (SUMMARY if (path / SUMMARY).is_file() and not (path / TABLE).exists() else TABLE)


def mean_scores(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each score over the cases where it is defined; NaN where it is for none."""
    return {name: mean(values) for name, values in columns_of(scores).items()}


def score_table(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return a line per case, then mean and standard deviation over the cases where a score is defined."""
    columns = columns_of(scores)
    rows: list[Row] = [["case", *columns]]
    rows += [[row["case"], *(float(row[name]) for name in columns)] for row in scores]
    return format_table([*rows, ["mean", *map(mean, columns.values())], ["sd", *map(deviation, columns.values())]])


def named_class_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores of the class as ``class NAME``, since the segmentation may have scores of the same names."""
    return {f"class {name}": value for name, value in scores.items()}


def columns_of(scores: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the values of each score over the cases where it is defined."""
    names = [name for name in (scores[0] if scores else {}) if name != "case"]
    return {name: [row[name] for row in scores if not math.isnan(row[name])] for name in names}


def deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation, or NaN for fewer than two values or an infinite one."""
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def mean(values: Sequence[float]) -> float:
    """Return the mean, or NaN without values."""
    return statistics.fmean(values) if values else math.nan
