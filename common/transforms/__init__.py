"""Transforms that MONAI does not have."""

from .body import ClipChannelsd, CropBodyd, NormalizeBodyd, body_box
from .brain import BratsLabelsd, CropBraind, NormalizeBraind, ToBratsd, brain_mask, to_brats
from .centres import PatchCentresd
from .channels import SelectChannelsd
from .fusion import FuseTasksd
from .grids import ResampleAxesd, ReturnToScand
from .labels import CheckLabeld
from .tumour_parts import CleanTumourd
from .windows import RandWindowd

__all__ = [
    "BratsLabelsd",
    "CheckLabeld",
    "CleanTumourd",
    "ClipChannelsd",
    "CropBodyd",
    "CropBraind",
    "FuseTasksd",
    "NormalizeBodyd",
    "NormalizeBraind",
    "PatchCentresd",
    "RandWindowd",
    "ResampleAxesd",
    "ReturnToScand",
    "SelectChannelsd",
    "ToBratsd",
    "body_box",
    "brain_mask",
    "to_brats",
]
