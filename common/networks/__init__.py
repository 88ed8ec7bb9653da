"""The published networks. Every one takes and gives MONAI's axis order ``(B, C, x, y, z)``, slices last."""

from .mmfnet import MMFNet
from .omnet import OMNet, SingleTaskNet

__all__ = ["MMFNet", "OMNet", "SingleTaskNet"]
