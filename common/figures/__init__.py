"""Draw pictures and plots of results."""

from .marks import save_png
from .names_in_masks import names_of_values, record_beside
from .on_one_grid import label_dice, read_mask, read_on_grid, scale_bar
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
    "label_dice",
    "names_of_values",
    "outline_figure",
    "paired_figure",
    "read_mask",
    "read_on_grid",
    "record_beside",
    "roc_curve",
    "roc_figure",
    "save_png",
    "scale_bar",
    "window_of",
]
