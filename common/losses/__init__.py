"""Losses that MONAI does not have."""

from .multi_task import MultiTaskCrossEntropy

__all__ = ["MultiTaskCrossEntropy"]
