"""Plot the scores of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..reporting import class_probabilities
from .marks import check_png, save_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VOLUME = "volume (ml)"
MOST_SCORES = 4  # of a plot of distributions


def roc_curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return false positive rates, true positive rates and the area under the ROC curve.

    The rates go from the highest threshold to the lowest; cases with equal scores make one step.

    Args:
        scores: score of each case.
        positive: true class of each case.

    Raises:
        ValueError: there are no positive or no negative cases.
    """
    truth = np.asarray(positive, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError(f"{truth.sum()} positive of {truth.size} cases; a ROC curve needs positive and negative cases")
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    descending = np.asarray(scores, dtype=float)[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # last case of each group of equal scores
    hits = np.append(0, np.cumsum(truth[order])[last]) / truth.sum()
    alarms = np.append(0, np.cumsum(~truth[order])[last]) / (~truth).sum()
    return alarms, hits, float(np.trapezoid(hits, alarms))


def draw_roc(rows: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """Draw a ROC curve of each class against the others, or of the second class alone if there are two.

    Args:
        rows: rows of the cases, as :func:`class_row` makes them.
        out: PNG; an unchanged picture of this project there is replaced.

    Raises:
        InputError: all cases have the same class, or ``out`` is another file.
    """
    check_png(out)
    return save_png(roc_figure(rows), out)


def roc_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure of :func:`draw_roc`.

    Raises:
        InputError: all cases have the same class.
    """
    from matplotlib.figure import Figure  # here, because it is slow to import

    classes, probabilities, true = class_probabilities(rows)
    shown = [c for c in range(len(classes))[len(classes) == 2 :] if 0 < true.count(c) < len(true)]
    if not shown:
        raise InputError(f"{len(rows)} cases of {len({*true})} class; a ROC curve needs cases of two classes")
    figure = Figure((4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    for c in shown:
        alarms, hits, area = roc_curve([p[c] for p in probabilities], [t == c for t in true])
        ax.plot(alarms, hits, label=f"{classes[c]}, area {area:.3f}")
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="dashed")
    ax.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.legend(loc="lower right", fontsize=8)
    return figure


def bland_altman(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of ``one - other`` and the limits of agreement, mean -/+ 1.96 sample standard deviations.

    Raises:
        ValueError: fewer than two pairs.
    """
    differences = np.subtract(one, other)
    if differences.size < 2:
        raise ValueError(f"{differences.size} pairs; limits of agreement need at least two")
    mean, reach = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    return mean, mean - reach, mean + reach


def draw_bland_altman(rows: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """Draw predicted minus true volume of each region over the mean of both, one point for each case.

    Lines show the mean difference and the limits of agreement. A case is left out of a region that it has neither in
    the prediction nor in the ground truth.

    Args:
        rows: scores of the cases with ``volume (ml)`` and ``true volume (ml)``, as ``SegmentationScores`` makes them.
        out: PNG; an unchanged picture of this project there is replaced.

    Raises:
        InputError: the rows have no volumes, fewer than two cases have a region, or ``out`` is another file.
    """
    check_png(out)
    return save_png(bland_altman_figure(rows), out)


def bland_altman_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure of :func:`draw_bland_altman`.

    Raises:
        InputError: the rows have no volumes, or fewer than two cases have a region.
    """
    from matplotlib.figure import Figure

    regions = [name.removeprefix(VOLUME) for name in (rows[0] if rows else {}) if name.startswith(VOLUME)]
    if not regions:
        raise InputError(f"{len(rows)} cases without '{VOLUME}'; this evaluation does not measure volumes")
    figure = Figure((5 * len(regions), 4), layout="constrained")
    for ax, region in zip(figure.subplots(1, len(regions), squeeze=False)[0], regions):
        pairs = [(row[VOLUME + region], row[f"true {VOLUME}{region}"]) for row in rows]
        pairs = [pair for pair in pairs if any(pair)]
        if len(pairs) < 2:
            raise InputError(f"{len(pairs)} cases with a volume{region}; limits of agreement need at least two")
        predicted, true = np.transpose(pairs)
        ax.scatter((predicted + true) / 2, predicted - true, s=14)
        mean, low, high = bland_altman(predicted, true)
        for value, label in ((mean, "mean"), (low, "mean - 1.96 sd"), (high, "mean + 1.96 sd")):
            style = "solid" if value == mean else "dashed"
            ax.axhline(value, color="grey", linewidth=0.8, linestyle=style, label=f"{label}: {value:.1f} ml")
        ax.set(
            xlabel="mean of predicted and true volume, ml", ylabel="predicted - true volume, ml", title=region.strip()
        )
        ax.legend(fontsize=8)
    return figure


def distribution_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Return a box plot with a point for each case, of the first four scores without the volumes, a box for each run.

    Args:
        runs: name and scores of the cases of each run.
    """
    from matplotlib.figure import Figure

    names = _score_names(runs)
    figure = Figure((2.6 * max(len(names), 1), 3), layout="constrained")
    for ax, name in zip(figure.subplots(1, max(len(names), 1), squeeze=False)[0], names):
        values = [[v for row in rows if math.isfinite(v := row.get(name, math.nan))] for rows in runs.values()]
        ax.boxplot(values, widths=0.5, showfliers=False)
        for place, of_run in enumerate(values, 1):
            ax.scatter(place + np.linspace(-0.12, 0.12, len(of_run)), of_run, s=8, alpha=0.6)
        ax.set_xticks(range(1, len(runs) + 1), [_literal(run) for run in runs], fontsize=7)
        ax.set_title(_literal(name), fontsize=9)
    return figure


def paired_figure(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Return a line for each case between its scores in the first run and in the others.

    Args:
        runs: name and scores of the cases of two or more runs; a case that a run lacks is left out.
    """
    from matplotlib.figure import Figure

    names = _score_names(runs)
    by_case = [{row["case"]: row for row in rows} for rows in runs.values()]
    shared = [case for case in by_case[0] if all(case in rows for rows in by_case)]
    figure = Figure((2.6 * max(len(names), 1), 3), layout="constrained")
    for ax, name in zip(figure.subplots(1, max(len(names), 1), squeeze=False)[0], names):
        for case in shared:
            ax.plot(
                [rows[case].get(name, math.nan) for rows in by_case], "o-", color="grey", linewidth=0.7, markersize=3
            )
        ax.set_xticks(range(len(runs)), [_literal(run) for run in runs], fontsize=7)
        ax.set_title(_literal(name), fontsize=9)
    return figure


def _score_names(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    names = dict.fromkeys(name for rows in runs.values() for row in rows[:1] for name in row)
    return [name for name in names if name != "case" and VOLUME not in name][:MOST_SCORES]


def _literal(text: str) -> str:
    """Return text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
