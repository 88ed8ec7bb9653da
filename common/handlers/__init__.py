"""Show the progress and the curves of MONAI's engines."""

from .progress import Progress
from .tensorboard import EpochCurves

__all__ = [
    "EpochCurves",
    "Progress",
]
