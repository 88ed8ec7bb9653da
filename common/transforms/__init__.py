"""Transforms that MONAI does not have."""

from .body import ClipChannelsd, CropBodyd, NormalizeBodyd, body_box
from .brain import BratsLabelsd, CropBraind, NormalizeBraind, ToBratsd, brain_mask, to_brats
from .channels import SelectChannelsd
from .grids import ResampleAxesd, ReturnToScand
from .labels import CheckLabeld
from .windows import RandWindowd

__all__ = [
    "BratsLabelsd",
    "CheckLabeld",
    "ClipChannelsd",
    "CropBodyd",
    "CropBraind",
    "NormalizeBodyd",
    "NormalizeBraind",
    "RandWindowd",
    "ResampleAxesd",
    "ReturnToScand",
    "SelectChannelsd",
    "ToBratsd",
    "body_box",
    "brain_mask",
    "to_brats",
]
