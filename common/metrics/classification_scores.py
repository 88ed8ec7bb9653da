"""Scores of a classification over the cases of an evaluation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_roc_auc
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError


class ClassificationScores:
    """Scores of the class probabilities of all cases; a case counts as the class of its highest probability.

    Of two classes with one named ``positive``, as tests for a disease have it:

    ===========  ==============================  ==============================================
    score        meaning                         NaN if
    ===========  ==============================  ==============================================
    accuracy     right cases / all               there is no case
    AUC          area under the ROC curve        all cases are of one class
    precision    TP / (TP + FP)                  no case counts as positive
    recall       TP / (TP + FN)                  no case is positive
    specificity  TN / (TN + FP)                  no case is negative
    F1           2 TP / (2 TP + FP + FN)         no case is positive and none counts as positive
    ===========  ==============================  ==============================================

    Otherwise each class is taken against the rest, and ``macro`` is the plain mean over the classes. It is NaN if the
    value of one class is: a class that is never predicted must not raise the mean of the others.

    ===============  =======================================  =====================================
    score            meaning                                  NaN if
    ===============  =======================================  =====================================
    accuracy         right cases / all                        there is no case
    macro recall     mean of TP / (TP + FN)                   a class has no case
    macro precision  mean of TP / (TP + FP)                   no case counts as one of the classes
    F1               harmonic mean of the two; 0 if both are  one of the two is
    macro AUC        mean of the areas below                  a class has no case, or all of them
    AUC ``<class>``  area under the ROC curve of the class    that class has no case, or all of them
    ===============  =======================================  =====================================

    This F1 is that of MultiR-Net's tables, and not the mean of the F1 of each class. Tied probabilities count half in
    an AUC, as in MONAI's ``compute_roc_auc``, which computes it.

    Args:
        classes: names in the order of the probabilities.
        positive: one of two classes.

    Raises:
        InputError: fewer than two classes or one twice; ``positive`` is none of two classes.
    """

    def __init__(self, classes: Sequence[str], positive: str | None = None) -> None:
        if len(classes) < 2 or len({*classes}) < len(classes):
            raise InputError(f"classes {list(classes)}: expected two or more different names")
        if positive is not None and (positive not in classes or len(classes) > 2):
            raise InputError(f"positive class '{positive}' among {list(classes)}: expected one of two classes, or null")
        self.classes = tuple(classes)
        self.positive = positive

    def __call__(self, probabilities: ArrayLike, truth: ArrayLike) -> dict[str, float]:
        """Scores by name, in the order of the table.

        Args:
            probabilities: ``(N, C)``, of each case and class.
            truth: ``(N,)``, indices into ``classes``.

        Raises:
            InputError: other shapes, a probability that is not finite, an index of no class.
        """
        p, truth, n_classes = np.asarray(probabilities, np.float64), np.asarray(truth), len(self.classes)
        if truth.ndim != 1 or p.shape != (len(truth), n_classes):
            raise InputError(
                f"probabilities of shape {p.shape} for the classes of shape {truth.shape}: "
                f"expected (N, {n_classes}), for {', '.join(self.classes)}, and (N,)"
            )
        if not np.isfinite(p).all():
            raise InputError(f"case {np.argwhere(~np.isfinite(p))[0, 0]} has a class probability that is not finite")
        if not np.isin(truth, range(n_classes)).all():
            raise InputError(f"classes {np.unique(truth).tolist()}: expected indices from 0 to {n_classes - 1}")

        counts = np.zeros((n_classes, n_classes))  # truth by prediction
        np.add.at(counts, (truth.astype(np.intp), p.argmax(axis=1)), 1)
        right, cases, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        accuracy = _quotient(right.sum(), cases.sum())
        areas = [_auc(p[:, k], truth == k) for k in range(n_classes)]
        if self.positive is not None:
            k = self.classes.index(self.positive)
            return {
                "accuracy": accuracy,
                "AUC": areas[k],
                "precision": _quotient(right[k], predicted[k]),
                "recall": _quotient(right[k], cases[k]),
                "specificity": _quotient(right[1 - k], cases[1 - k]),
                "F1": _quotient(2 * right[k], cases[k] + predicted[k]),
            }
        recall, precision = (statistics.fmean(map(_quotient, right, of)) for of in (cases, predicted))
        return {
            "accuracy": accuracy,
            "macro recall": recall,
            "macro precision": precision,
            "F1": harmonic_mean(precision, recall),
            "macro AUC": statistics.fmean(areas),
            **{f"AUC {name}": area for name, area in zip(self.classes, areas)},
        }


def harmonic_mean(precision: float, recall: float) -> float:
    """``2 P R / (P + R)``; 0 if both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _quotient(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    if len(np.unique(positive)) < 2:
        return math.nan
    return float(compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(positive.astype(np.int64))))
