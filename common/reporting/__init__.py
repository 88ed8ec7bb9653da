"""Read, write and compare the results of runs: scores and classes of cases, as files and as tables."""

from .calibration import calibration
from .classes import (
    class_probabilities,
    class_row,
    class_table,
    read_class_scores,
    read_classes,
    read_classification,
    read_result,
    write_class_scores,
    write_result,
)
from .comparison import compare
from .formats import format_table
from .nnunet_summary import read_summary
from .paired import compare_paired, holm, paired_difference
from .scores import (
    deviation,
    mean,
    mean_scores,
    named_class_scores,
    read_case_scores,
    read_scores,
    score_table,
    scores_file,
    write_scores,
)
from .tables import check_table, missing_results, noted_tables, own_table

__all__ = [
    "calibration",
    "check_table",
    "class_probabilities",
    "class_row",
    "class_table",
    "compare",
    "compare_paired",
    "deviation",
    "format_table",
    "holm",
    "mean",
    "mean_scores",
    "missing_results",
    "named_class_scores",
    "noted_tables",
    "own_table",
    "paired_difference",
    "read_case_scores",
    "read_class_scores",
    "read_classes",
    "read_classification",
    "read_result",
    "read_scores",
    "read_summary",
    "score_table",
    "scores_file",
    "write_class_scores",
    "write_result",
    "write_scores",
]
