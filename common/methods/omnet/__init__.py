"""OM-Net: segmentation of gliomas in brain MRI."""

from .brain import BratsLabelsd, CropBraind, NormalizeBraind, ToBratsd, brain_mask, to_brats
from .cascade import CascadeInferer
from .cascade_network import Cascade, SingleTaskNet
from .centres import PatchCentresd
from .fusion import FuseTasksd
from .loss import MultiTaskCrossEntropy
from .network import OMNet
from .phantom import BRAIN_DISTRACTORS, BRAIN_SIGNALS, BrainPhantom
from .streams import StreamsDataset
from .training import one_pass
from .tumour_parts import CleanTumourd

__all__ = [
    "BRAIN_DISTRACTORS",
    "BRAIN_SIGNALS",
    "BrainPhantom",
    "BratsLabelsd",
    "Cascade",
    "CascadeInferer",
    "CleanTumourd",
    "CropBraind",
    "FuseTasksd",
    "MultiTaskCrossEntropy",
    "NormalizeBraind",
    "OMNet",
    "PatchCentresd",
    "SingleTaskNet",
    "StreamsDataset",
    "ToBratsd",
    "brain_mask",
    "one_pass",
    "to_brats",
]
