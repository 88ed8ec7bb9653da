"""Score a training by its validation cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ignite.metrics import Average

from .mean_score import MeanScore
from .segmentation_scores import SegmentationScores


class ValidationScore(Average):
    """Compute the mean over cases of the Dice, of the probability of the true class, or of both.

    The Dice of a case is the mean over its regions. See :class:`MeanScore` for cases and regions without a score, and
    for the entries of the evaluator's output; the true class is in ``true_class``.

    Args:
        labels, regions, without_truth: as for :class:`SegmentationScores`.
        task: ``seg`` for the Dice, ``class`` for the probability, ``both`` for their mean.
    """

    def __init__(
        self,
        labels: Mapping[str, int],
        regions: Mapping[str, Sequence[int]] | None = None,
        task: str = "seg",
        without_truth: float | None = None,
    ) -> None:
        dice = SegmentationScores(scores=["Dice"], labels=labels, regions=regions, without_truth=without_truth)
        score = MeanScore(None if task == "class" else dice, class_key=None if task == "seg" else "true_class")
        super().__init__(output_transform=score)
