"""The score of a validation, for each task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine

from common.metrics import ValidationScore

# Dice 1 and probability 0.8; Dice 0 and probability 0.4
CASES = [
    {"pred": torch.ones(1, 2, 2, 2), "label": torch.ones(1, 2, 2, 2), "true_class": 0, "p": [0.8, 0.2]},
    {"pred": torch.zeros(1, 2, 2, 2), "label": torch.ones(1, 2, 2, 2), "true_class": 1, "p": [0.6, 0.4]},
]


def score(**options: Any) -> float:
    engine = Engine(lambda engine, case: [{**case, "result": {"probabilities": dict(zip("ab", case["p"]))}}])
    ValidationScore(labels={"lesion": 1}, **options).attach(engine, "score")
    engine.run(CASES)
    return engine.state.metrics["score"]


@pytest.mark.parametrize(("task", "expected"), [("seg", 0.5), ("class", 0.6), ("both", (0.9 + 0.2) / 2)])
def test_each_task_has_its_score(task: str, expected: float) -> None:
    assert score(task=task) == pytest.approx(expected)


def test_the_segmentation_alone_is_the_default() -> None:
    assert score() == 0.5
