"""Write one self-contained page about evaluations and inferences, and pictures of their cases."""

from .page import write_report
from .pictures import draw_cases

__all__ = ["draw_cases", "write_report"]
