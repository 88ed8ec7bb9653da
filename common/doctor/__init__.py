"""Examine the machine, a bundle and a data set before a run, to find what would fail later."""

from .bundle import examine_bundle
from .data import examine_data
from .findings import Findings
from .machine import examine_machine
from .training_time import estimate_training

__all__ = [
    "Findings",
    "estimate_training",
    "examine_bundle",
    "examine_data",
    "examine_machine",
]
