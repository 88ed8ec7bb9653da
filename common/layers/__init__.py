"""Build networks from what several of them share: forms, checks, strips, masks, and the ensemble of networks."""

from .ensemble import MeanEnsemble, mean_ensemble
from .forms import TwoForms, append_class, split_class
from .masks import label_masks

__all__ = [
    "MeanEnsemble",
    "TwoForms",
    "append_class",
    "label_masks",
    "mean_ensemble",
    "split_class",
]
