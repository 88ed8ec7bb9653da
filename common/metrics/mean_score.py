"""A score of validation: the mean of all scores of a case."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor


class MeanScore:
    """For ``ignite.metrics.Average`` of an evaluator: the mean of a case's scores, such as the Dice of each region.

    Args:
        scores: function of prediction and truth ``(1, C, x, y, z)`` to names and values.
        pred_key, label_key: entries of the evaluator's decollated output.
    """

    def __init__(
        self, scores: Callable[[Tensor, Tensor], Mapping[str, float]], pred_key: str = "pred", label_key: str = "label"
    ) -> None:
        self.scores = scores
        self.pred_key = pred_key
        self.label_key = label_key

    def __call__(self, output: Sequence[Mapping[str, Tensor]]) -> float:
        cases = [self.scores(case[self.pred_key][None], case[self.label_key][None]) for case in output]
        return statistics.fmean(value for scores in cases for value in scores.values())
