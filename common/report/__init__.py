"""Write one self-contained page about evaluations and inferences: scores, plots, and slices with outlines."""

from .page import write_report

__all__ = ["write_report"]
