"""Layers and checks that several networks share, and the ensemble of networks."""

from .ensemble import MeanEnsemble

__all__ = [
    "MeanEnsemble",
]
