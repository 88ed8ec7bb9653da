"""Layers, forms and checks that several networks share, and the ensemble of networks."""

from .ensemble import MeanEnsemble, mean_ensemble
from .forms import TwoForms, append_class, split_class

__all__ = [
    "MeanEnsemble",
    "TwoForms",
    "append_class",
    "mean_ensemble",
    "split_class",
]
