"""Transform cases in ways that MONAI does not have.

Memory is estimated from headers alone. So each of our transforms that changes the size of a case
says so. A transform without one of these members leaves that part of a case as it is:

- ``shape_after(shape, spacing)`` returns the shape in voxels and the spacing in mm of its result. Both, and its
  arguments, are along left-right, front-back and foot-head of a scan with perpendicular axes. Where the result depends
  on the values of the voxels, as for a crop to the brain, the shape is the largest possible one.
- ``channels_after(channels)`` returns the number of channels of its result.
- ``bytes_per_voxel`` is the number of bytes that it adds to a case for each voxel, at most.
"""

from .background import AddBackgroundd
from .class_index import ClassIndexd
from .class_result import SplitClassesd
from .dicom_seg import WriteDicomSegd
from .grids import ResampleAxesd
from .intensity import CheckHounsfieldd, CheckMRId, ClipScaled, ClipStandardized
from .label_values import LabelValuesd
from .labels import CheckLabeld
from .return_to_scan import DecideLabeld, ReturnToScand
from .save_image import AtomicSaveImaged
from .save_probabilities import SaveProbabilitiesd

__all__ = [
    "AddBackgroundd",
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
    "ReturnToScand",
    "SaveProbabilitiesd",
    "SplitClassesd",
    "WriteDicomSegd",
]
