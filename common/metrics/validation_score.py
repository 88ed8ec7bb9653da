"""Score a training by its validation cases."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from ignite.metrics import Average

from .mean_score import TRUE_CLASS, MeanScore
from .segmentation_scores import SegmentationScores


class ValidationScore(Average):
    """Compute the mean over cases of the Dice, of the probability of the true class, or of both.

    The Dice of a case is the mean over its regions. See :class:`MeanScore` for cases and regions without a score, and
    for the entries of the evaluator's output; the true class is in ``true_class``.

    Beside its own value, the metric puts the parts of it into ``state.metrics``: ``Dice NAME`` of each label or region,
    and ``true class probability``. Each is the mean over the cases that have it, or NaN.

    Args:
        labels, regions, without_truth: as for :class:`SegmentationScores`.
        task: ``seg`` for the Dice, ``class`` for the probability, ``both`` for their mean.
        pred_key: key of the label map in the evaluator's output.
    """

    def __init__(
        self,
        labels: Mapping[str, int],
        regions: Mapping[str, Sequence[int]] | None = None,
        task: str = "seg",
        without_truth: float | None = None,
        pred_key: str = "pred",
    ) -> None:
        dice = SegmentationScores(scores=["Dice"], labels=labels, regions=regions, without_truth=without_truth)
        self.score = MeanScore(
            None if task == "class" else dice, pred_key, class_key=None if task == "seg" else "true_class"
        )
        names = [] if task == "class" else [f"Dice {region}" for region in dice.regions or {}]
        self.parts = names if task == "seg" else [*names, TRUE_CLASS]
        super().__init__(output_transform=self._score_batch)

    def reset(self) -> None:
        """Drop all cases."""
        super().reset()
        self.sums = torch.zeros(
            2, len(self.parts), dtype=torch.float64
        )  # of the scores, and of the cases that have one

    def completed(self, engine: Engine, name: str) -> None:
        """Put the value and its parts into ``engine.state.metrics``."""
        super().completed(engine, name)
        sums, counts = idist.all_reduce(self.sums).tolist()
        for part, total, count in zip(self.parts, sums, counts):
            engine.state.metrics[part] = total / count if count else math.nan

    def _score_batch(self, output: Sequence[Mapping[str, Any]]) -> float:
        cases = [self.score.values_of(case) for case in output]
        for values in cases:
            for index, name in enumerate(self.parts):
                if not math.isnan(value := values.get(name, math.nan)):
                    self.sums[:, index] += torch.tensor([value, 1.0], dtype=torch.float64)
        return statistics.fmean(map(self.score.reduce, cases))
