"""Draw pictures and plots of results."""

from .pictures import draw_outlines
from .plots import bland_altman, draw_bland_altman, draw_roc, roc_curve

__all__ = [
    "bland_altman",
    "draw_bland_altman",
    "draw_outlines",
    "draw_roc",
    "roc_curve",
]
