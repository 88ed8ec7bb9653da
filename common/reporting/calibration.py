"""Compute how well the class probabilities of cases are calibrated.

References:
    Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950) 1-3.
    Guo et al., On calibration of modern neural networks, ICML 2017, https://arxiv.org/abs/1706.04599, eq. 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

BINS = 10


def calibration(probabilities: ArrayLike, truth: Sequence[int]) -> dict[str, float]:
    """Return ``Brier`` and ``ECE`` of class probabilities; for both, 0 is best.

    Args:
        probabilities: probability of each case and class, ``(N, C)``, N and C at least 1.
        truth: true class of each case as index, ``(N,)``.
    """
    p, true = np.asarray(probabilities, np.float64), np.asarray(truth)
    return {"Brier": brier_score(p, true), "ECE": expected_calibration_error(p, true)}


def brier_score(p: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over the cases of ``sum_c (p_c - y_c)^2``, where y_c is 1 for the true class, else 0.

    With two classes, the sum is halved. This gives the usual ``(p - y)^2`` of the positive class, as in scikit-learn's
    ``brier_score_loss``. So the range is 0 to 1 with two classes, and 0 to 2 with more.
    """
    squares = ((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1)
    return float(squares.mean() / (2 if p.shape[1] == 2 else 1))


def expected_calibration_error(p: np.ndarray, truth: np.ndarray) -> float:
    """Return ``sum_b n_b / N |accuracy_b - confidence_b|``.

    The confidence of a case is the probability of its most probable class, the first of equal ones. Bin b of 10 holds
    the n_b cases with a confidence in ((b - 1) / 10, b / 10].
    """
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == truth
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)  # a confidence at an upper edge stays in its bin
    gaps = np.bincount(bins, weights=correct - confidence)  # n_b (accuracy_b - confidence_b)
    return float(np.abs(gaps).sum() / len(p))
