"""Score cases and their classes, gather the scores of all processes, write and log them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor

from ..processes import gather
from ..reporting import (
    check_table,
    class_probabilities,
    class_row,
    class_table,
    mean_scores,
    named_class_scores,
    score_table,
    write_class_scores,
    write_scores,
)

logger = logging.getLogger(__name__)

SCORES, CLASSES, CLASS_SCORES = "scores.csv", "classes.csv", "class_scores.csv"

Row = dict[str, Any]


class CaseScores:
    """Keep a row of scores and, if classes are scored, a row of its class for each case.

    Args:
        metrics, truth_key, class_scores, scores_dir, made_by: as for :class:`CaseEvaluator`.

    Attributes:
        rows: scores of the cases of this process, and after :meth:`complete` of all processes.
        classes: classes of the cases of this process.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Callable]],
        truth_key: str,
        class_scores: Callable[[Tensor, Tensor], Mapping[str, float]] | None,
        scores_dir: str | Path | None,
        made_by: Mapping[str, str] | None,
    ) -> None:
        self.metrics = metrics
        self.truth_key = truth_key
        self.class_scores = class_scores
        self.folder = None if scores_dir is None else Path(scores_dir)
        self.made_by = made_by
        self.rows: list[Row] = []
        self.classes: list[Row] = []

    def begin(self) -> None:
        """Drop the rows of an earlier run.

        Raises:
            InputError: a table in the folder must not be replaced.
        """
        self.rows, self.classes = [], []
        if self.folder is not None:
            for table in (SCORES,) if self.class_scores is None else (SCORES, CLASSES, CLASS_SCORES):
                check_table(self.folder / table, self.made_by)

    def of_case(self, case: Mapping[str, Any]) -> tuple[Row, Row | None]:
        """Return the row of scores of a post-processed case, and the row of its class if both classes are known."""
        row: Row = {"case": case["case"]}
        for key, metrics in self.metrics.items():
            for name, metric in metrics.items():
                value = metric(case[key][None], torch.as_tensor(case[self.truth_key][None]).to(case[key].device))
                row.update(value if isinstance(value, Mapping) else {name: float(value)})
        if self.class_scores is None or "result" not in case or "class" not in case:
            return row, None
        return row, class_row(case["case"], int(case["class"]), case["result"])

    def add(self, row: Row, class_of_case: Row | None) -> None:
        """Add the rows of a case."""
        self.rows.append(row)
        if class_of_case is not None:
            self.classes.append(class_of_case)

    def complete(self, state: Any, reserved: Collection[str]) -> None:
        """Gather the rows of all processes, put their means into the engine's state, write and log them.

        Args:
            state: state of the engine, which gets ``metrics`` and ``metric_details``.
            reserved: names of the metrics of handlers, which stay.
        """
        rows = gather(self.rows)
        for name, mean in mean_scores(rows).items():
            if name in reserved:
                logger.warning("score '%s': a metric of a handler has the same name, and is in state.metrics", name)
                continue
            state.metrics[name] = mean
            state.metric_details[name] = torch.tensor([[row[name]] for row in rows])
        self.rows = sorted(rows, key=lambda row: row["case"])
        if idist.get_rank() == 0 and self.folder is not None and self.rows:
            write_scores(self.rows, self.folder / SCORES, self.made_by)
            logger.info("scores of each case are in %s\n%s", self.folder / SCORES, score_table(self.rows))
        if self.class_scores is not None:
            self._complete_classes(state, self.class_scores)

    def _complete_classes(self, state: Any, class_scores: Callable[[Tensor, Tensor], Mapping[str, float]]) -> None:
        rows = sorted(gather(self.classes), key=lambda row: row["case"])
        if not rows:
            return
        _, probabilities, true = class_probabilities(rows)
        values = class_scores(torch.tensor(probabilities), torch.tensor(true))
        state.metrics.update(named_class_scores(values))
        if idist.get_rank() == 0:
            if self.folder is not None:
                write_scores(rows, self.folder / CLASSES, self.made_by)
                write_class_scores(values, self.folder / CLASS_SCORES, self.made_by)
            logger.info("classes of %d cases\n%s", len(rows), class_table(rows, values))
