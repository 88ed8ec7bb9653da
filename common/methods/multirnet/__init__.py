"""Segment COVID-19 lesions and diagnose chest CT by MultiR-Net (doi:10.1016/j.compbiomed.2022.105340).

- ``lungs``: the box of the lungs in a whole scan, and its place in the result; ours, since the paper has only patches.
- ``patches``: patches centred on lesions, for training and for the published test protocol (section 4.1).
- ``segmentation``: V-Net, the fused segmentation (3.1, fig. 2, eq. 1), reverse attention (3.2, fig. 3, eq. 2 and 3).
- ``pass_norm``: running statistics of their own for the first pass and the later ones; ours, an option.
- ``network``: the segmentation subnet and the classifier (3.1, fig. 2).
- ``loss``: focal Tversky loss (3.3, eq. 6 and 7), and its sum with the cross-entropy of the class (eq. 8 and 9).
- ``training``: iterative learning, in which a pass sees the segmentation of the pass before (3.4, algorithm 1).
- ``phantom``: a synthetic chest with COVID-19, another pneumonia, or no lesion; ours.

Resampling and intensities (algorithm 2) are in ``common.transforms``; the scores (eq. 10 to 13) in
``common.metrics``; Grad-CAM (fig. 11) is ``common.inferers.ClassActivationInferer``. Figure by figure, and the list of
deviations from the paper: ``docs/explanation/multirnet.md``.
"""

from .loss import FocalTverskyLoss, SegmentationClassLoss
from .lungs import CropLungsd, LungBoxd, lung_mask
from .network import MultiRNet
from .patches import CropLesionPatchd, FindLesionCentresd, RandCropLesionPatchd
from .phantom import LungPhantom
from .training import iterative_update

__all__ = [
    "CropLesionPatchd",
    "CropLungsd",
    "FindLesionCentresd",
    "FocalTverskyLoss",
    "LungBoxd",
    "LungPhantom",
    "MultiRNet",
    "RandCropLesionPatchd",
    "SegmentationClassLoss",
    "iterative_update",
    "lung_mask",
]
