"""Test the score of a validation, for each task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine

from common.metrics import ValidationScore

from ..trainers import in_two_processes

# Dice 1 and probability 0.8; Dice 0 and probability 0.4
CASES = [
    {"pred": torch.ones(1, 2, 2, 2), "label": torch.ones(1, 2, 2, 2), "true_class": 0, "p": [0.8, 0.2]},
    {"pred": torch.zeros(1, 2, 2, 2), "label": torch.ones(1, 2, 2, 2), "true_class": 1, "p": [0.6, 0.4]},
]


def metrics(cases: list[dict] = CASES, **options: Any) -> dict[str, float]:
    engine = Engine(lambda engine, case: [{**case, "result": {"probabilities": dict(zip("ab", case["p"]))}}])
    ValidationScore(**{"labels": {"lesion": 1}, **options}).attach(engine, "score")
    engine.run(cases)
    engine.run(cases)  # the second validation forgets the first
    return engine.state.metrics


def score(**options: Any) -> float:
    return metrics(**options)["score"]


@pytest.mark.parametrize(("task", "expected"), [("seg", 0.5), ("class", 0.6), ("both", (0.9 + 0.2) / 2)])
def test_each_task_has_its_score(task: str, expected: float) -> None:
    assert score(task=task) == pytest.approx(expected)


def test_the_segmentation_alone_is_the_default() -> None:
    assert score() == 0.5


def test_each_part_has_its_mean_by_name() -> None:
    assert metrics(task="both") == pytest.approx({"score": 0.55, "Dice lesion": 0.5, "true class probability": 0.6})
    assert metrics() == {"score": 0.5, "Dice lesion": 0.5}
    assert metrics(task="class") == pytest.approx({"score": 0.6, "true class probability": 0.6})


def test_a_region_counts_in_the_cases_that_have_it() -> None:
    """The first case has no ground truth of the second label, and no case has one of the third."""
    label = torch.zeros(1, 2, 2, 2)
    label[:, 0] = 1
    both = label.clone()
    both[:, 1, 0] = 2
    cases = [{"pred": label, "label": label, "p": []}, {"pred": label, "label": both, "p": []}]
    found = metrics(cases, labels={"one": 1, "two": 2, "three": 3}, without_truth=float("nan"))
    expected = {"score": (1 + 0.5) / 2, "Dice one": 1, "Dice two": 0, "Dice three": float("nan")}
    assert found == pytest.approx(expected, nan_ok=True)
    regions = metrics(cases, labels={"one": 1, "two": 2}, regions={"all": ["one", "two"]})
    assert regions == pytest.approx({"score": (1 + 0.8) / 2, "Dice all": (1 + 0.8) / 2})


def _process(rank: int) -> None:
    expected = {"score": (1 + 0 + 0) / 3, "Dice lesion": 1 / 3}
    assert metrics([CASES[:1], [CASES[1], CASES[1]]][rank]) == pytest.approx(expected)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_have_the_mean_over_all_cases() -> None:
    in_two_processes(_process)


def test_the_label_map_may_have_another_key() -> None:
    cases = [{"pred": torch.rand(1, 2, 2, 2), "mask": case["label"], "label": case["label"], "p": []} for case in CASES]
    assert metrics(cases, pred_key="mask")["score"] == 1
