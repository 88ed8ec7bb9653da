"""Compute metrics that MONAI does not have, or does not compute for each case."""

from .classification_scores import ClassificationScores
from .mean_score import MeanScore
from .segmentation_scores import SegmentationScores
from .validation_score import ValidationScore

__all__ = [
    "ClassificationScores",
    "MeanScore",
    "SegmentationScores",
    "ValidationScore",
]
