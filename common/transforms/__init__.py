"""Transforms that MONAI does not have."""

from .class_label import ClassIndexd
from .class_result import SplitClassesd
from .dicom_seg import WriteDicomSegd
from .grids import ResampleAxesd
from .intensity import CheckHounsfieldd, CheckMRId, ClipScaled, ClipStandardized
from .label_values import LabelValuesd
from .labels import CheckLabeld
from .return_to_scan import DecideLabeld, ReturnToScand

__all__ = [
    "CheckHounsfieldd",
    "CheckLabeld",
    "CheckMRId",
    "ClassIndexd",
    "ClipScaled",
    "ClipStandardized",
    "DecideLabeld",
    "LabelValuesd",
    "ResampleAxesd",
    "ReturnToScand",
    "SplitClassesd",
    "WriteDicomSegd",
]
