"""Plots of an evaluation's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import whole_file
from .classes import class_probabilities


def roc_curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[np.ndarray, np.ndarray, float]:
    """False and true positive rates from the highest threshold to the lowest, equal scores at once, and the area.

    Raises:
        ValueError: not both positive and negative cases.
    """
    truth = np.asarray(positive, dtype=bool)
    if truth.all() or not truth.any():
        raise ValueError(f"{truth.sum()} positive of {truth.size} cases: a curve needs both kinds")
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    descending = np.asarray(scores, dtype=float)[order]
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))  # of equal scores
    hits = np.append(0, np.cumsum(truth[order])[last]) / truth.sum()
    alarms = np.append(0, np.cumsum(~truth[order])[last]) / (~truth).sum()
    return alarms, hits, float(np.trapezoid(hits, alarms))


def draw_roc(rows: Sequence[Mapping[str, Any]], out: str | Path) -> Path:
    """A curve for each class against the others; of two classes, which mirror each other, for the second.

    Args:
        rows: of the cases, as :func:`class_row` makes them.
        out: PNG.

    Raises:
        InputError: no class has both cases of it and others.
    """
    from matplotlib.figure import Figure  # only pictures need it, and it is slow to import

    classes, probabilities, true = class_probabilities(rows)
    shown = [c for c in range(len(classes))[len(classes) == 2 :] if 0 < true.count(c) < len(true)]
    if not shown:
        raise InputError(f"{len(rows)} cases of {len({*true})} class: a ROC curve needs cases of two")
    figure = Figure((4.5, 4.5), layout="constrained")
    ax = figure.subplots()
    for c in shown:
        alarms, hits, area = roc_curve([p[c] for p in probabilities], [t == c for t in true])
        ax.plot(alarms, hits, label=f"{classes[c]}, area {area:.3f}")
    ax.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="dashed")
    ax.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.legend(loc="lower right", fontsize=8)
    with whole_file(out) as partial:
        figure.savefig(partial, dpi=110, format="png")
    return Path(out)
