"""Metrics that MONAI does not have, or not per case."""

from .average_precision import AveragePrecisionMetric, average_precision
from .classification_scores import ClassificationScores
from .mean_score import MeanScore
from .segmentation_scores import SegmentationScores

__all__ = ["AveragePrecisionMetric", "ClassificationScores", "MeanScore", "SegmentationScores", "average_precision"]
