"""MPU-Net: segmentation of the liver in CT."""

from .loss import DeepSupervisionLoss, TverskyCrossEntropyLoss
from .network import MPUNet
from .phantom import LiverPhantom
from .slab import CropSlabd
from .unet import AdditiveUNet

__all__ = [
    "AdditiveUNet",
    "CropSlabd",
    "DeepSupervisionLoss",
    "LiverPhantom",
    "MPUNet",
    "TverskyCrossEntropyLoss",
]
