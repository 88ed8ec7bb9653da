"""MPU-Net: segmentation of the liver in CT."""

from .loss import DeepSupervisionLoss, TverskyCrossEntropyLoss
from .network import AdditiveUNet, MPUNet
from .phantom import LiverPhantom
from .slab import CropSlabd

__all__ = [
    "AdditiveUNet",
    "CropSlabd",
    "DeepSupervisionLoss",
    "LiverPhantom",
    "MPUNet",
    "TverskyCrossEntropyLoss",
]
