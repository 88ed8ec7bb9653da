"""Build networks from what several of them share: forms, checks, strips, and the ensemble of networks."""

from .ensemble import MeanEnsemble, mean_ensemble
from .forms import TwoForms, append_class, split_class

__all__ = [
    "MeanEnsemble",
    "TwoForms",
    "append_class",
    "mean_ensemble",
    "split_class",
]
