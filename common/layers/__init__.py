"""Build networks from what they share: PReLU, forms, checks, strips, masks and ensembles."""

from .ensemble import MeanEnsemble, mean_ensemble
from .forms import TwoForms, append_class, split_class, training_form_of
from .masks import binary_cross_entropy, label_masks
from .prelu import PReLU

__all__ = [
    "MeanEnsemble",
    "PReLU",
    "TwoForms",
    "append_class",
    "binary_cross_entropy",
    "label_masks",
    "mean_ensemble",
    "split_class",
    "training_form_of",
]
