from __future__ import annotations

import numpy as np
import pytest

from common.reporting import calibration


def test_brier_score_of_two_classes_is_that_of_the_positive() -> None:
    """The numbers are those in the documentation of scikit-learn's ``brier_score_loss``."""
    positive = np.array([0.1, 0.9, 0.8, 0.3])
    scores = calibration(np.stack([1 - positive, positive], axis=1), [0, 1, 1, 0])
    assert scores["Brier"] == pytest.approx(0.0375)


def test_brier_score_of_three_classes_sums_over_them() -> None:
    """The numbers are those in the documentation of scikit-learn's ``brier_score_loss``: 0.06, 0.14 and 0.24."""
    p = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.2, 0.6]]
    assert calibration(p, [0, 1, 2])["Brier"] == pytest.approx(0.44 / 3)


def test_calibration_error_by_hand() -> None:
    """Bin (0.6, 0.7]: accuracy 1/2, confidence 0.65. Bin (0.7, 0.8]: accuracy 1, confidence 0.75."""
    p = [[0.7, 0.3], [0.4, 0.6 + 1e-9], [0.25, 0.75], [0.25, 0.75]]
    assert calibration(p, [0, 0, 1, 1])["ECE"] == pytest.approx((2 * 0.15 + 2 * 0.25) / 4)


def test_a_confidence_at_an_edge_is_in_the_lower_bin() -> None:
    """In one bin, 0.25 too high and 0.25 too low cancel; in two they do not."""
    in_one = [[0.75, 0.25], [0.75, 0.25]]
    assert calibration(in_one, [0, 1])["ECE"] == pytest.approx(0.25)
    edge = [[0.8, 0.2], [0.75, 0.25]]
    assert calibration(edge, [0, 1])["ECE"] == pytest.approx(abs(1 - 0.8 - 0.75) / 2)
    above = [[0.8 + 1e-9, 0.2], [0.75, 0.25]]
    assert calibration(above, [0, 1])["ECE"] == pytest.approx((0.2 + 0.75) / 2)


def test_certain_and_right_is_0_certain_and_wrong_is_worst() -> None:
    assert calibration(np.eye(3), [0, 1, 2]) == {"Brier": 0.0, "ECE": 0.0}
    assert calibration(np.eye(3), [1, 2, 0]) == {"Brier": 2.0, "ECE": 1.0}
    assert calibration(np.eye(2), [1, 0]) == {"Brier": 1.0, "ECE": 1.0}


def test_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 200)
    truth = rng.integers(0, 3, 200)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == truth
    expected = 0.0
    for b in range(1, 11):
        inside = ((b - 1) / 10 < confidence) & (confidence <= b / 10)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration(p, truth.tolist())["ECE"] == pytest.approx(expected)
