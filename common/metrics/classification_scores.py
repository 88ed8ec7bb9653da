"""Score a classification over all cases of an evaluation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_roc_auc
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .quotient import quotient


class ClassificationScores:
    """Compute scores from the class probabilities of all cases; the predicted class is the most probable one.

    With two classes and the name of the ``positive`` one, as in a test for a disease:

    ===========  ==============================  ==============================================
    score        meaning                         NaN if
    ===========  ==============================  ==============================================
    accuracy     correct cases / all cases       no cases
    AUC          area under the ROC curve        all cases are of one class
    precision    TP / (TP + FP)                  no case is predicted positive
    recall       TP / (TP + FN)                  no case is positive
    specificity  TN / (TN + FP)                  no case is negative
    F1           2 TP / (2 TP + FP + FN)         no case is positive or predicted positive
    ===========  ==============================  ==============================================

    Otherwise each class is compared with all others, and ``macro`` is the unweighted mean over the classes. It is NaN
    if the value of one class is NaN: a class that is never predicted must not raise the mean of the others.

    ===============  =======================================  =====================================
    score            meaning                                  NaN if
    ===============  =======================================  =====================================
    accuracy         correct cases / all cases                no cases
    macro recall     mean of TP / (TP + FN)                   a class has no case
    macro precision  mean of TP / (TP + FP)                   a class is never predicted
    F1               harmonic mean of both; 0 if both are 0   one of both is NaN
    macro AUC        mean of the AUCs of the classes          a class has no case, or all cases
    AUC ``<class>``  area under the ROC curve of the class    the class has no case, or all cases
    ===============  =======================================  =====================================

    This F1 is the one in MultiR-Net's tables, not the mean of the F1 of each class. MONAI's ``compute_roc_auc``
    computes the AUC; a pair of tied probabilities counts half.

    Args:
        classes: class names in the order of the probabilities.
        positive: name of the positive class; only with two classes.

    Raises:
        InputError: there are fewer than two classes; a name occurs twice; or ``positive`` is set with more than two
            classes, or is not one of them.
    """

    def __init__(self, classes: Sequence[str], positive: str | None = None) -> None:
        if len(classes) < 2 or len({*classes}) < len(classes):
            raise InputError(f"classes {list(classes)}: expected two or more different names")
        if positive is not None and (positive not in classes or len(classes) > 2):
            raise InputError(f"positive class '{positive}' among {list(classes)}: expected one of two classes, or null")
        self.classes = tuple(classes)
        self.positive = positive

    def __call__(self, probabilities: ArrayLike, truth: ArrayLike) -> dict[str, float]:
        """Return the scores by name, in the order of the table.

        Args:
            probabilities: probability of each case and class, ``(N, C)``.
            truth: true class of each case as index into ``classes``, ``(N,)``.

        Raises:
            InputError: a shape is wrong, a probability is not finite, or an index is out of range.
        """
        p, truth, n_classes = np.asarray(probabilities, np.float64), np.asarray(truth), len(self.classes)
        if truth.ndim != 1 or p.shape != (len(truth), n_classes):
            raise InputError(
                f"probabilities of shape {p.shape} for the classes of shape {truth.shape}: "
                f"expected (N, {n_classes}), for {', '.join(self.classes)}, and (N,)"
            )
        if not np.isfinite(p).all():
            raise InputError(
                f"case {np.argwhere(~np.isfinite(p))[0, 0]}: a class probability is not finite: {p[~np.isfinite(p)][0]}"
            )
        if not np.isin(truth, range(n_classes)).all():
            raise InputError(f"classes {np.unique(truth).tolist()}: expected indices from 0 to {n_classes - 1}")

        counts = np.zeros((n_classes, n_classes))  # truth by prediction
        np.add.at(counts, (truth.astype(np.intp), p.argmax(axis=1)), 1)
        correct, cases, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
        accuracy = quotient(correct.sum(), cases.sum())
        areas = [_auc(p[:, k], truth == k) for k in range(n_classes)]
        if self.positive is not None:
            k = self.classes.index(self.positive)
            return {
                "accuracy": accuracy,
                "AUC": areas[k],
                "precision": quotient(correct[k], predicted[k]),
                "recall": quotient(correct[k], cases[k]),
                "specificity": quotient(correct[1 - k], cases[1 - k]),
                "F1": quotient(2 * correct[k], cases[k] + predicted[k]),
            }
        recall, precision = (statistics.fmean(map(quotient, correct, total)) for total in (cases, predicted))
        return {
            "accuracy": accuracy,
            "macro recall": recall,
            "macro precision": precision,
            "F1": harmonic_mean(precision, recall),
            "macro AUC": statistics.fmean(areas),
            **{f"AUC {name}": area for name, area in zip(self.classes, areas)},
        }


def harmonic_mean(precision: float, recall: float) -> float:
    """Return ``2 P R / (P + R)``, or 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    if len(np.unique(positive)) < 2:
        return math.nan
    return float(compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(positive.astype(np.int64))))
