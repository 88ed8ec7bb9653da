"""Show the progress, the curves and the pictures of MONAI's engines."""

from .pictures import ValidationPictures
from .progress import Progress
from .tensorboard import EpochCurves

__all__ = [
    "EpochCurves",
    "Progress",
    "ValidationPictures",
]
