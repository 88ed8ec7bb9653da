"""The published networks. Every one takes and gives MONAI's axis order ``(B, C, x, y, z)``, slices last."""

from .ensemble import MeanEnsemble
from .mmfnet import MMFNet
from .omnet import Cascade, OMNet, SingleTaskNet

__all__ = ["Cascade", "MMFNet", "MeanEnsemble", "OMNet", "SingleTaskNet"]
