"""Draw pictures and plots of results."""

from .marks import save_png
from .pictures import draw_outlines, outline_figure, window_of
from .plots import (
    bland_altman,
    bland_altman_figure,
    distribution_figure,
    draw_bland_altman,
    draw_roc,
    paired_figure,
    roc_curve,
    roc_figure,
)

__all__ = [
    "bland_altman",
    "bland_altman_figure",
    "distribution_figure",
    "draw_bland_altman",
    "draw_outlines",
    "draw_roc",
    "outline_figure",
    "paired_figure",
    "roc_curve",
    "roc_figure",
    "save_png",
    "window_of",
]
