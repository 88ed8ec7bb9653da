"""Handlers of MONAI's engines."""

from .progress import Progress

__all__ = [
    "Progress",
]
