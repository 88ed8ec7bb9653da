"""Transforms that MONAI does not have."""

from .class_label import ClassIndexd
from .class_result import SplitClassesd
from .dicom_seg import WriteDicomSegd
from .grids import ResampleAxesd
from .intensity import CheckHounsfieldd, CheckMRId, ClipScaled, ClipStandardized
from .label_values import LabelValuesd
from .labels import CheckLabeld
from .resample_to_scan import DecideLabeld, ResampleToScand
from .save_image import AtomicSaveImaged

__all__ = [
    "AtomicSaveImaged",
    "CheckHounsfieldd",
    "CheckLabeld",
    "CheckMRId",
    "ClassIndexd",
    "ClipScaled",
    "ClipStandardized",
    "DecideLabeld",
    "LabelValuesd",
    "ResampleAxesd",
    "ResampleToScand",
    "SplitClassesd",
    "WriteDicomSegd",
]
