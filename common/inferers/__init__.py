"""Inference of a volume by windows."""

from .cascade import CascadeInferer
from .class_activation import ClassActivationInferer
from .classifying import ClassifyingWindowInferer
from .windows import WindowInferer

__all__ = ["CascadeInferer", "ClassActivationInferer", "ClassifyingWindowInferer", "WindowInferer"]
