"""Results for people: tables of scores and classes, pictures, plots."""

from .classes import (
    class_probabilities,
    class_row,
    class_table,
    read_class_scores,
    read_classes,
    read_result,
    write_class_scores,
    write_result,
)
from .marks import check_table
from .pictures import draw_outlines
from .plots import bland_altman, draw_bland_altman, draw_roc, roc_curve
from .scores import compare, mean_scores, named_class_scores, read_scores, score_table, write_scores

__all__ = [
    "bland_altman",
    "check_table",
    "class_probabilities",
    "class_row",
    "class_table",
    "compare",
    "draw_bland_altman",
    "draw_outlines",
    "draw_roc",
    "mean_scores",
    "named_class_scores",
    "read_class_scores",
    "read_classes",
    "read_result",
    "read_scores",
    "roc_curve",
    "score_table",
    "write_class_scores",
    "write_result",
    "write_scores",
]
