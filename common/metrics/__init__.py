"""Metrics that MONAI does not have, or not per case."""

from .average_precision import AveragePrecisionMetric, average_precision

__all__ = ["AveragePrecisionMetric", "average_precision"]
