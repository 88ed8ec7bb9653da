"""MultiR-Net: segmentation of COVID-19 lesions and diagnosis in chest CT."""

from .loss import FocalTverskyLoss, SegmentationClassLoss
from .lungs import CropLungsd, LungBoxd, lung_mask
from .network import MultiRNet
from .patches import CropAtd, LesionCentresd, RandCropAtd
from .phantom import LungPhantom
from .training import iterative_update

__all__ = [
    "CropAtd",
    "CropLungsd",
    "FocalTverskyLoss",
    "LesionCentresd",
    "LungBoxd",
    "LungPhantom",
    "MultiRNet",
    "RandCropAtd",
    "SegmentationClassLoss",
    "iterative_update",
    "lung_mask",
]
