"""Examine the machine, a bundle and a data set before a run, to find what would fail later."""

from .bundle import examine_bundle
from .data import examine_data
from .findings import Findings
from .machine import examine_machine

__all__ = [
    "Findings",
    "examine_bundle",
    "examine_data",
    "examine_machine",
]
