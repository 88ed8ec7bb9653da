"""The files of results: scores and classes of cases as CSV and JSON, and as tables of text."""

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
from .scores import compare, mean_scores, named_class_scores, read_scores, score_table, write_scores
from .tables import check_table

__all__ = [
    "check_table",
    "class_probabilities",
    "class_row",
    "class_table",
    "compare",
    "mean_scores",
    "named_class_scores",
    "read_class_scores",
    "read_classes",
    "read_result",
    "read_scores",
    "score_table",
    "write_class_scores",
    "write_result",
    "write_scores",
]
