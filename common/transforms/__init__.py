"""Transforms that MONAI does not have."""

from .body import ClipChannelsd, CropBodyd, NormalizeBodyd, body_box
from .channels import SelectChannelsd
from .labels import CheckLabeld
from .windows import RandWindowd

__all__ = [
    "CheckLabeld",
    "ClipChannelsd",
    "CropBodyd",
    "NormalizeBodyd",
    "RandWindowd",
    "SelectChannelsd",
    "body_box",
]
