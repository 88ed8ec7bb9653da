"""MMFNet: segmentation of nasopharyngeal carcinoma in multi-modality MRI."""

from .average_precision import AveragePrecisionMetric, average_precision
from .body import ClipChannelsd, CropBodyd, NormalizeBodyd, body_box
from .channels import SelectChannelsd
from .network import MMFNet
from .patches import RandWindowd
from .phantom import HEAD_DISTRACTORS, HEAD_SIGNALS, HeadPhantom
from .training import training_stages

__all__ = [
    "HEAD_DISTRACTORS",
    "HEAD_SIGNALS",
    "AveragePrecisionMetric",
    "ClipChannelsd",
    "CropBodyd",
    "HeadPhantom",
    "MMFNet",
    "NormalizeBodyd",
    "RandWindowd",
    "SelectChannelsd",
    "average_precision",
    "body_box",
    "training_stages",
]
