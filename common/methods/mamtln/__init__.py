"""Segment gastric tumours and classify lymph nodes in CT by MA-MTLN (doi:10.1109/TMI.2021.3062902).

- ``patches``: training patches, a share of which is centred on the tumour (section V-A).
- ``slice_deformation``: augmentation in the plane, the same for all slices, since slices are thick (V-A).
- ``backbone``: the features of four scales (III-B, fig. 2).
- ``attention``: visual, adaptive spatial and task-aware attention (III-B and III-C, fig. 3, eq. 1 to 8).
- ``network``: the whole network with its two tasks (III-B and III-C, fig. 2 to 4); ``blocks`` holds layers and fusions.
- ``loss``: Jaccard and focal loss of the segmentation (III-D, eq. 9 to 11), the weights of the deep supervision
  (eq. 12), the cross-entropy of the class (eq. 13) and the learned weights of the tasks (eq. 14).
- ``phantom``: a synthetic abdomen with a tumour of the stomach and lymph nodes; ours.

Resampling, intensities and the class of a case are in ``common.transforms``. The training loop is
``common.engines.supervised``; the vote of the windows is ``common.inferers.ClassifyingWindowInferer``.
Figure by figure, and the list of deviations from the paper: ``docs/explanation/mamtln.md``.
"""

from .loss import JaccardFocalLoss, ReleasedJaccardFocalLoss, UncertaintyWeightedLoss
from .network import MAMTLN
from .patches import FindTumourVoxelsd, RandCropTumourPatchd
from .phantom import StomachPhantom
from .slice_deformation import RandDeformSlicesd

__all__ = [
    "MAMTLN",
    "FindTumourVoxelsd",
    "JaccardFocalLoss",
    "RandCropTumourPatchd",
    "RandDeformSlicesd",
    "ReleasedJaccardFocalLoss",
    "StomachPhantom",
    "UncertaintyWeightedLoss",
]
