"""Draw pictures and plots of results."""

from .marks import save_png
from .pictures import draw_outlines, outline_figure
from .plots import bland_altman, draw_bland_altman, draw_roc, roc_curve

__all__ = [
    "bland_altman",
    "draw_bland_altman",
    "draw_outlines",
    "draw_roc",
    "outline_figure",
    "roc_curve",
    "save_png",
]
