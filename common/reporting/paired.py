"""Compare runs pairwise on the same cases: mean difference, bootstrap interval, Wilcoxon's test, Holm's correction.

References:
    Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945) 80-83.
    Efron, Better bootstrap confidence intervals, J. Am. Stat. Assoc. 82 (1987) 171-185.
    Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, wilcoxon

from ..errors import InputError, UsageError
from .comparison import Scores, chosen_columns, on_same_cases
from .formats import Row, check_format, format_table

FEWEST_PAIRS = 6  # two-sided p is at least 2 / 2^n: 0.0625 for 5 pairs, 0.03125 for 6
RESAMPLES, SEED, CONFIDENCE = 9999, 0, 0.95
DECIMALS = 6  # of the scores in scores.csv; rounding makes equal differences equal in binary too
BATCH = 1000  # resamples in memory at a time

HEADER = ["score", "first", "second", "pairs", "left out", "difference", "95% low", "95% high", "p", "p Holm", "note"]


class PairedDifference(NamedTuple):
    """Hold how the scores of two runs differ on the same cases.

    Args:
        pairs: number of cases with a finite score in both runs.
        left_out: number of the other cases.
        mean: mean of second minus first over the pairs, NaN without a pair.
        low: lower end of the 95 % interval of that mean, NaN with fewer than 6 pairs.
        high: upper end.
        p: two-sided p of the Wilcoxon signed-rank test, NaN where ``note`` says why.
        note: reason for a missing p value, else empty.
    """

    pairs: int
    left_out: int
    mean: float
    low: float
    high: float
    p: float
    note: str


def paired_difference(first: ArrayLike, second: ArrayLike) -> PairedDifference:
    """Return how two scores of the same cases differ.

    The interval is SciPy's bias-corrected and accelerated bootstrap of the mean difference, with 9999 resamples of the
    cases and seed 0. The test is SciPy's ``wilcoxon``, which drops differences of 0.

    Args:
        first: scores of one run, ``(N,)``; NaN where a score is not defined.
        second: scores of the other run for the same cases in the same order, ``(N,)``.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    paired = np.isfinite(a) & np.isfinite(b)
    difference = np.round(b[paired] - a[paired], DECIMALS)
    pairs, left_out = difference.size, int((~paired).sum())
    mean = float(difference.mean()) if pairs else math.nan
    if pairs < FEWEST_PAIRS:
        note = f"fewer than {FEWEST_PAIRS} pairs: no interval, no p"
        return PairedDifference(pairs, left_out, mean, math.nan, math.nan, math.nan, note)
    if not difference.any():
        return PairedDifference(pairs, left_out, 0.0, 0.0, 0.0, math.nan, "all differences are 0: no p")
    low, high = _interval(difference)
    return PairedDifference(pairs, left_out, mean, low, high, float(wilcoxon(difference).pvalue), "")


def _interval(difference: np.ndarray) -> tuple[float, float]:
    """Return the bootstrap interval of the mean; equal differences have no spread to resample."""
    if np.ptp(difference) == 0:
        return float(difference[0]), float(difference[0])
    interval = bootstrap(
        (difference,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=BATCH,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's step-down method; NaN stays and counts as no test.

    The k-th smallest of m values, from k = 1, becomes the largest of ``(m - j + 1) p_j`` over j up to k, at most 1.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for smaller, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - smaller) * p))
        adjusted[i] = largest
    return adjusted


def compare_paired(
    runs: Mapping[str, Scores], common_cases: bool = False, columns: Sequence[str] = (), format: str = "text"
) -> str:
    """Return a line for each score and each pair of runs, with Holm's correction over all lines that have a p.

    A line below the table names the methods and the number of tests; CSV has the table alone.

    Args:
        runs: scores of the cases of two or more runs. A score that a run lacks is left out for all of its cases.
        common_cases: as for :func:`compare`.
        columns: the scores to compare, in this order; all unless given.
        format: as for :func:`format_table`.

    Raises:
        InputError: the runs have different cases, no run has scores, or no run has one of ``columns``.
        UsageError: there is one run, or the format is unknown.
    """
    check_format(format)
    if len(runs) < 2:
        raise UsageError(f"--paired: {len(runs)} run; expected two or more, as NAME=FOLDER NAME=FOLDER")
    by_case = {run: {row["case"]: row for row in scores} for run, scores in on_same_cases(runs, common_cases).items()}
    found = dict.fromkeys(name for rows in by_case.values() for row in rows.values() for name in row if name != "case")
    if not found:
        raise InputError(
            f"no scores of each case in the runs {', '.join(runs)}, so there is nothing to compare in pairs"
        )
    lines = []
    for name in chosen_columns(columns, found, "the scores of each case"):
        for first, second in itertools.combinations(by_case, 2):
            a = [row.get(name, math.nan) for row in by_case[first].values()]
            b = [by_case[second][case].get(name, math.nan) for case in by_case[first]]
            lines.append((name, first, second, paired_difference(a, b)))
    adjusted = holm([result.p for *_, result in lines])
    digits = 9 if format == "csv" else 4  # of p, which may be far below 0.0001
    rows: list[Row] = [HEADER]
    for (name, first, second, result), p_holm in zip(lines, adjusted):
        rows.append([name, first, second, *result[:-2], f"{result.p:.{digits}g}", f"{p_holm:.{digits}g}", result.note])
    table = format_table(rows, format)
    if format == "csv":
        return table
    tests = sum(not math.isnan(p) for p in adjusted)
    return (
        f"{table}\n\ndifference: mean of second - first over the pairs; 95% interval: BCa bootstrap of that mean,\n"
        f"{RESAMPLES} resamples, seed {SEED}; p: Wilcoxon signed-rank, two-sided; p Holm: corrected (tests: {tests})"
    )
