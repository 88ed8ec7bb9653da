"""What would fail later: the machine, a bundle and a data set looked at before a run."""

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
