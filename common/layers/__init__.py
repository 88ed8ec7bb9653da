"""Layers and checks that several networks share, and the ensemble of networks."""

from .ensemble import MeanEnsemble, mean_ensemble

__all__ = [
    "MeanEnsemble",
    "mean_ensemble",
]
