"""Compare the scores of several runs: which cases and columns count, and the means side by side."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .formats import Row, format_table
from .scores import columns_of, deviation, mean, mean_scores, named_class_scores

SHOWN = 3  # cases in a message

Scores = Sequence[Mapping[str, Any]]


def compare(
    runs: Mapping[str, Scores],
    class_scores: Mapping[str, Mapping[str, float]] | None = None,
    folds: bool = False,
    common_cases: bool = False,
    columns: Sequence[str] = (),
    format: str = "text",
) -> str:
    """Return the mean scores of several runs, a line each, such as the rows of an ablation table.

    Args:
        runs: scores of the cases of each run.
        class_scores: scores over all cases of some of the runs; their columns are called ``class NAME``.
        folds: the runs are folds, each with its own cases. Two more lines give the mean and the standard deviation over
            the runs where a score is defined.
        common_cases: the means are over the cases that all runs have. Where a run has others too, ``class_scores``,
            which count them, are left out.
        columns: the columns to show, in this order; all unless given.
        format: as for :func:`format_table`.

    Raises:
        InputError: without these two, the runs have different cases; no case is common to all; or no run has one of
            ``columns``.
        UsageError: the format is unknown.
    """
    if not folds:
        shared = on_same_cases(runs, common_cases, ", or --folds true for folds")
        if any(len(shared[run]) < len(scores) for run, scores in runs.items()):
            class_scores = None
        runs = shared
    means = {
        run: {**mean_scores(scores), **named_class_scores((class_scores or {}).get(run, {}))}
        for run, scores in runs.items()
    }
    names = chosen_columns(columns, dict.fromkeys(name for values in means.values() for name in values), "the runs")
    rows: list[Row] = [["run", "cases", *names]]
    for run, values in means.items():
        rows.append([run, len(runs[run]), *(values.get(name, math.nan) for name in names)])
    if folds:
        defined = columns_of([{name: values.get(name, math.nan) for name in names} for values in means.values()])
        rows.append(["mean", "", *map(mean, defined.values())])
        rows.append(["sd", "", *map(deviation, defined.values())])
    return format_table(rows, format)


def on_same_cases(runs: Mapping[str, Scores], common_cases: bool, other_fix: str = "") -> Mapping[str, Scores]:
    """Return the scores of the cases that all runs have.

    Args:
        runs: scores of the cases of each run.
        common_cases: a run may have other cases too, which are left out.
        other_fix: second remedy, for the end of the message.

    Raises:
        InputError: the runs have different cases and may not, or no case is common to all.
    """
    cases = {run: {row["case"] for row in scores} for run, scores in runs.items()}
    common = set.intersection(*cases.values()) if cases else set()
    if all(names == common for names in cases.values()):
        return runs
    if not common_cases:
        raise InputError(_different_cases(cases) + other_fix)
    if not common:
        raise InputError(f"no case is common to the runs {', '.join(runs)}; evaluate them on the same cases")
    return {run: [row for row in scores if row["case"] in common] for run, scores in runs.items()}


def _different_cases(cases: Mapping[str, set[str]]) -> str:
    """Return a line about two runs of which one has cases that the other lacks."""
    for run, names in cases.items():
        for other, others in cases.items():
            if lacking := sorted(names - others):
                shown = ", ".join(lacking[:SHOWN]) + (", ..." if len(lacking) > SHOWN else "")
                return (
                    f"{run} and {other} have different cases: {len(lacking)} only in {run} ({shown}); evaluate the "
                    "same cases, or add --common_cases true"
                )
    raise AssertionError("the same cases")


def chosen_columns(columns: Sequence[str], found: Mapping[str, Any], where: str) -> list[str]:
    """Return the columns that were asked for, each once, or all where none was.

    Args:
        columns: names asked for.
        found: the columns that exist.
        where: where they exist, for the message.

    Raises:
        InputError: a name asked for does not exist; the message names the nearest, or all.
    """
    for name in columns:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(found)}"
            raise InputError(f"--columns: no column '{name}' in {where}; {hint}")
    return list(dict.fromkeys(columns or found))
