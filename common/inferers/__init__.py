"""Inference of a volume by windows."""

from .windows import WindowInferer

__all__ = ["WindowInferer"]
