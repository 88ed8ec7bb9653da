"""Results for people: tables of scores, pictures of segmentations."""

from .pictures import draw_outlines
from .scores import compare, mean_scores, read_scores, score_table, write_scores

__all__ = ["compare", "draw_outlines", "mean_scores", "read_scores", "score_table", "write_scores"]
