"""Run a network over a volume, window by window."""

from .class_activation import ClassActivationInferer
from .classifying import ClassifyingWindowInferer
from .windows import WindowInferer

__all__ = [
    "ClassActivationInferer",
    "ClassifyingWindowInferer",
    "WindowInferer",
]
