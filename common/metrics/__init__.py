"""Metrics that MONAI does not have, or not per case."""

from .average_precision import AveragePrecisionMetric, average_precision
from .segmentation_scores import SegmentationScores

__all__ = ["AveragePrecisionMetric", "SegmentationScores", "average_precision"]
