"""MA-MTLN: segmentation of gastric tumours and classification of lymph nodes in CT."""

from .in_plane import InPlaned
from .loss import JaccardFocalLoss, UncertaintyWeightedLoss
from .network import MAMTLN
from .patches import RandCropTumourd, TumourVoxelsd
from .phantom import StomachPhantom

__all__ = [
    "MAMTLN",
    "InPlaned",
    "JaccardFocalLoss",
    "RandCropTumourd",
    "StomachPhantom",
    "TumourVoxelsd",
    "UncertaintyWeightedLoss",
]
