"""Transforms that MONAI does not have."""

from .body import ClipChannelsd, CropBodyd, NormalizeBodyd, body_box
from .brain import BratsLabelsd, CropBraind, NormalizeBraind, ToBratsd, brain_mask, to_brats
from .centres import PatchCentresd
from .channels import SelectChannelsd
from .class_label import ClassIndexd
from .class_result import SplitClassesd
from .fusion import FuseTasksd
from .grids import ResampleAxesd
from .in_plane import InPlaned
from .intensity import CheckHounsfieldd, CheckMRId, ClipScaled, ClipStandardized
from .label_values import LabelValuesd
from .labels import CheckLabeld
from .lesion_crop import CropAtd, LesionCentresd, RandCropAtd
from .lungs import CropLungsd, LungBoxd, lung_mask
from .return_to_scan import DecideLabeld, ReturnToScand
from .slab import CropSlabd
from .tumour_crop import RandCropTumourd, TumourVoxelsd
from .tumour_parts import CleanTumourd
from .windows import RandWindowd

__all__ = [
    "BratsLabelsd",
    "CheckHounsfieldd",
    "CheckLabeld",
    "CheckMRId",
    "ClassIndexd",
    "CleanTumourd",
    "ClipChannelsd",
    "ClipScaled",
    "ClipStandardized",
    "CropAtd",
    "CropBodyd",
    "CropBraind",
    "CropLungsd",
    "CropSlabd",
    "DecideLabeld",
    "FuseTasksd",
    "InPlaned",
    "LabelValuesd",
    "LesionCentresd",
    "LungBoxd",
    "NormalizeBodyd",
    "NormalizeBraind",
    "PatchCentresd",
    "RandCropAtd",
    "RandCropTumourd",
    "RandWindowd",
    "ResampleAxesd",
    "ReturnToScand",
    "SelectChannelsd",
    "SplitClassesd",
    "ToBratsd",
    "TumourVoxelsd",
    "body_box",
    "brain_mask",
    "lung_mask",
    "to_brats",
]
