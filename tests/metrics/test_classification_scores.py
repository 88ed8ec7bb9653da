from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.errors import InputError
from common.metrics import ClassificationScores
from common.metrics.classification_scores import harmonic_mean

LYMPH = ["negative", "positive"]
LUNG = ["COVID-19", "CAP", "normal"]


def pair(positive: list[float]) -> np.ndarray:
    return np.stack([1 - np.array(positive), positive], axis=1)


def defined(values: dict[str, float]) -> set[str]:
    return {name for name, value in values.items() if not math.isnan(value)}


def naive_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the fraction of pairs (positive, other) in the right order; a tie counts half."""
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    return sum(pairs) / len(pairs)


def test_scores_of_a_positive_class_equal_those_by_hand() -> None:
    """3 of 4 positives are found, with 1 false alarm among 2 negatives."""
    probabilities = pair([0.9, 0.8, 0.6, 0.3, 0.6, 0.1])

    values = ClassificationScores(LYMPH, positive="positive")(probabilities, [1, 1, 1, 1, 0, 0])

    assert values == pytest.approx(
        {"accuracy": 4 / 6, "AUC": 6.5 / 8, "precision": 3 / 4, "recall": 3 / 4, "specificity": 1 / 2, "F1": 3 / 4}
    )
    assert list(values) == ["accuracy", "AUC", "precision", "recall", "specificity", "F1"]
    assert all(type(value) is float for value in values.values())


def test_the_first_class_can_be_the_positive_one() -> None:
    """The same cases: 1 of 2 is found, with 1 false alarm among 4."""
    values = ClassificationScores(LYMPH, positive="negative")(
        pair([0.9, 0.8, 0.6, 0.3, 0.6, 0.1]), np.array([1, 1, 1, 1, 0, 0])
    )
    assert values == pytest.approx(
        {"accuracy": 4 / 6, "AUC": 6.5 / 8, "precision": 1 / 2, "recall": 1 / 2, "specificity": 3 / 4, "F1": 1 / 2}
    )


def test_always_positive_on_the_cohort_of_the_paper() -> None:
    """108 of 160 cases are positive: a constant prediction has accuracy 67.5, recall 100 and F1 80.6 (in %)."""
    values = ClassificationScores(LYMPH, "positive")(pair([0.7] * 160), [1] * 108 + [0] * 52)
    expected = {"accuracy": 0.675, "AUC": 0.5, "precision": 0.675, "recall": 1.0, "specificity": 0.0, "F1": 0.80597}
    assert values == pytest.approx(expected, abs=1e-5)


def test_scores_of_three_classes_equal_those_by_hand() -> None:
    """Truth by prediction: [[2, 1, 0], [0, 1, 0], [0, 1, 1]]."""
    truth = [0, 0, 0, 1, 2, 2]
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1], [0.1, 0.5, 0.4], [0.1, 0.5, 0.4], [0.2, 0.2, 0.6]]
    )

    values = ClassificationScores(LUNG)(torch.tensor(probabilities), torch.tensor(truth))

    recall, precision = (2 / 3 + 1 + 1 / 2) / 3, (1 + 1 / 3 + 1) / 3
    areas = [1.0, (1 + 1 + 0 + 0.5 + 1) / 5, 7.5 / 8]
    assert values == pytest.approx(
        {
            "accuracy": 4 / 6,
            "macro recall": recall,
            "macro precision": precision,
            "F1": 2 * recall * precision / (recall + precision),
            "macro AUC": sum(areas) / 3,
            "AUC COVID-19": areas[0],
            "AUC CAP": areas[1],
            "AUC normal": areas[2],
        }
    )
    assert list(values)[5:] == ["AUC COVID-19", "AUC CAP", "AUC normal"]
    per_class = (2 * 1 * 2 / 3 / (1 + 2 / 3) + 2 * 1 / 3 / (1 + 1 / 3) + 2 * 1 / 2 / (1 + 1 / 2)) / 3
    assert values["F1"] != pytest.approx(per_class, abs=1e-2)  # the mean of the F1 of each class


def test_two_classes_without_a_positive_one_have_macro_scores() -> None:
    values = ClassificationScores(LYMPH)(pair([0.9, 0.8, 0.6, 0.3, 0.6, 0.1]), [1, 1, 1, 1, 0, 0])
    assert values["macro recall"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert values["AUC negative"] == values["AUC positive"] == values["macro AUC"] == 6.5 / 8


@pytest.mark.parametrize(
    ("recall", "precision", "f1"),
    [(70.068, 85.034, 76.829), (84.495, 89.322, 86.841), (87.453, 88.134, 87.792), (93.323, 94.005, 93.663)],
)
def test_f1_equals_that_of_the_paper(recall: float, precision: float, f1: float) -> None:
    assert harmonic_mean(precision, recall) == pytest.approx(f1, abs=6e-4)


def test_auc_counts_pairs_with_ties_as_half() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.integers(1, 5, (40, 3)).astype(float)  # many ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = rng.integers(0, 3, 40)
    values = ClassificationScores(LUNG)(probabilities, truth)
    for k, name in enumerate(LUNG):
        assert values[f"AUC {name}"] == pytest.approx(naive_auc(probabilities[:, k], truth == k))


def test_undefined_scores_of_a_positive_class_are_nan() -> None:
    scores = ClassificationScores(LYMPH, "positive")
    none_predicted = scores(pair([0.1, 0.2, 0.3]), [1, 0, 0])
    assert defined(none_predicted) == {"accuracy", "AUC", "recall", "specificity", "F1"}
    assert (none_predicted["recall"], none_predicted["F1"]) == (0.0, 0.0)
    assert defined(scores(pair([0.1, 0.2]), [0, 0])) == {"accuracy", "specificity"}
    assert defined(scores(pair([0.1, 0.9]), [0, 0])) == {"accuracy", "precision", "specificity", "F1"}
    assert defined(scores(pair([0.1, 0.9]), [1, 1])) == {"accuracy", "precision", "recall", "F1"}
    assert defined(scores(np.zeros((0, 2)), [])) == set()


def test_undefined_scores_of_several_classes_are_nan() -> None:
    scores = ClassificationScores(LUNG)
    areas = {"macro AUC", *(f"AUC {name}" for name in LUNG)}
    never_predicted = scores([[0.8, 0.1, 0.1], [0.6, 0.4, 0], [0, 0, 1]], [0, 1, 2])
    assert defined(never_predicted) == {"accuracy", "macro recall"} | areas
    without_a_case = scores([[0.8, 0.1, 0.1], [0, 1, 0], [0, 0, 1]], [0, 0, 2])
    assert defined(without_a_case) == {"accuracy", "macro precision", "AUC COVID-19", "AUC normal"}
    assert defined(scores(np.zeros((0, 3)), [])) == set()


def test_f1_without_a_correct_case_is_0() -> None:
    assert ClassificationScores(LUNG)(np.eye(3), [1, 2, 0])["F1"] == 0.0


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        ([[0.5, 0.5]], [0], r"shape \(1, 2\) for the classes of shape \(1,\): expected \(N, 3\), for COVID-19, CAP"),
        ([[0.5, 0.5, 0.0]], [0, 1], r"expected \(N, 3\)"),
        ([[0.5, 0.5, 0.0]], [[0]], r"expected \(N, 3\)"),
        ([[0.5, 0.5, 0.0], [math.nan, 0.5, 0.5]], [0, 1], "case 1: a class probability is not finite: nan"),
        ([[0.5, 0.5, 0.0]], [3], r"classes \[3\]: expected indices from 0 to 2"),
        ([[0.5, 0.5, 0.0]], [-1], r"classes \[-1\]: expected indices from 0 to 2"),
        ([[0.5, 0.5, 0.0]], ["CAP"], r"classes \['CAP'\]: expected indices from 0 to 2"),
    ],
)
def test_wrong_input_is_refused(probabilities: list, truth: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassificationScores(LUNG)(probabilities, truth)


@pytest.mark.parametrize(
    ("classes", "positive", "message"),
    [
        (["one"], None, "expected two or more different names"),
        (["one", "one"], None, "expected two or more different names"),
        (LUNG, "CAP", "positive class 'CAP' among .*expected one of two classes"),
        (LYMPH, "metastasis", "positive class 'metastasis' among .*expected one of two classes"),
    ],
)
def test_wrong_settings_are_refused(classes: list[str], positive: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassificationScores(classes, positive)
