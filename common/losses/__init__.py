"""Losses that MONAI does not have."""

from .deep_supervision import DeepSupervisionLoss
from .focal_tversky import FocalTverskyLoss
from .jaccard_focal import JaccardFocalLoss
from .multi_task import MultiTaskCrossEntropy
from .segmentation_and_class import SegmentationClassLoss, UncertaintyWeightedLoss
from .tversky_cross_entropy import TverskyCrossEntropyLoss

__all__ = [
    "DeepSupervisionLoss",
    "FocalTverskyLoss",
    "JaccardFocalLoss",
    "MultiTaskCrossEntropy",
    "SegmentationClassLoss",
    "TverskyCrossEntropyLoss",
    "UncertaintyWeightedLoss",
]
