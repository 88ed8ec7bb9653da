"""Inference of a volume by windows."""

from .cascade import CascadeInferer
from .windows import WindowInferer

__all__ = ["CascadeInferer", "WindowInferer"]
