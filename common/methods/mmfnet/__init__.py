"""Segment nasopharyngeal carcinoma in multi-modality MRI by MMFNet (Chen et al., arXiv:1812.10033).

- ``body``: normalisation within the body and the crop around its centre (section IV-A).
- ``channels``: clipping ranges of the modalities (IV-A), and the modalities that an ablation leaves out.
- ``patches``: training patches of 16 slices, shifted, rotated and mirrored (IV-A).
- ``network``: the encoders, the fusion blocks and the decoder (III-A and III-B, fig. 2 to 4, eq. 4 to 13).
- ``training``: self-transfer: one network for each modality, then warm-up, then fine-tuning (III-C, fig. 5; IV-C).
- ``loss``: a loss of one probability map for each label (eq. 1 to 3).
- ``average_precision``: the score AP (eq. 15 to 17).
- ``phantom``: a synthetic head that needs all three modalities; ours.

The Dice loss is MONAI's. The sliding window of inference is ``common.inferers.WindowInferer``.
Figure by figure, and the list of deviations from the paper: ``docs/explanation/mmfnet.md``.
"""

from .average_precision import AveragePrecisionMetric, average_precision
from .body import CropBodyd, NormalizeBodyd, body_box
from .channels import ClipChannelsd, SelectChannelsd, clipping_ranges
from .loss import LabelMapsLoss
from .network import MMFNet
from .patches import RandCropRotatedPatchd
from .phantom import HEAD_DISTRACTORS, HEAD_SIGNALS, HeadPhantom
from .training import training_stages

__all__ = [
    "HEAD_DISTRACTORS",
    "HEAD_SIGNALS",
    "AveragePrecisionMetric",
    "ClipChannelsd",
    "CropBodyd",
    "HeadPhantom",
    "LabelMapsLoss",
    "MMFNet",
    "NormalizeBodyd",
    "RandCropRotatedPatchd",
    "SelectChannelsd",
    "average_precision",
    "body_box",
    "clipping_ranges",
    "training_stages",
]
