"""Run a network: over a volume window by window, or on the patches of a training."""

from .class_activation import ClassActivationInferer, class_to_explain
from .classifying import ClassifyingWindowInferer
from .training import TrainingInferer, mixed_precision
from .windows import WindowInferer

__all__ = [
    "ClassActivationInferer",
    "ClassifyingWindowInferer",
    "TrainingInferer",
    "WindowInferer",
    "class_to_explain",
    "mixed_precision",
]
