"""The published networks. Every one takes and gives MONAI's axis order ``(B, C, x, y, z)``, slices last."""

from .ensemble import MeanEnsemble
from .mamtln import MAMTLN
from .mmfnet import MMFNet
from .mpunet import AdditiveUNet, MPUNet
from .multirnet import MultiRNet
from .omnet import Cascade, OMNet, SingleTaskNet

__all__ = [
    "MAMTLN",
    "AdditiveUNet",
    "Cascade",
    "MMFNet",
    "MPUNet",
    "MeanEnsemble",
    "MultiRNet",
    "OMNet",
    "SingleTaskNet",
]
