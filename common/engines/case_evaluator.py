"""Evaluation and inference over cases, of which a broken one does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.engines import SupervisedEvaluator

from ..errors import InputError, root_cause
from ..reporting import mean_scores, score_table, write_scores

logger = logging.getLogger(__name__)


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over a :class:`CaseDataset`, one case a batch.

    A case that failed, in reading, in the network or in writing, is reported in one line and left out of the scores;
    the others go on.

    Args:
        metrics: per entry of the post-processed output, the metrics of it: name to a function of prediction and truth
            ``(1, C, x, y, z)``, such as MONAI's metric objects, that gives one value.
        truth_key: the entry of the case that holds the truth.
        scores_file: CSV of the scores, a row per case; the table is also logged.
        kwargs: as for ``SupervisedEvaluator``.

    Raises:
        InputError: from ``run``, after the last case, if any failed; it names them all.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Callable]] | None = None,
        truth_key: str = "truth",
        scores_file: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metrics = metrics or {}
        self.truth_key = truth_key
        self.scores_file = scores_file
        self.failures: list[str] = []
        self.scores: list[dict[str, Any]] = []

    def run(self, global_epoch: int = 1) -> None:
        self.failures, self.scores = [], []
        if self.state.epoch_length:
            super().run(global_epoch)
        failures, scores = _gather(self.failures), sorted(_gather(self.scores), key=lambda row: row["case"])
        self.state.metrics.update(mean_scores(scores))
        if idist.get_rank() == 0:
            if self.scores_file is not None and scores:
                write_scores(scores, self.scores_file)
                logger.info("scores of each case are in %s\n%s", self.scores_file, score_table(scores))
            logger.info("%d of %d cases done", len(scores), len(scores) + len(failures))
        if failures:
            raise InputError(
                f"{len(failures)} of {len(scores) + len(failures)} cases failed:\n  " + "\n  ".join(failures)
            )

    def _iteration(self, engine: CaseEvaluator, batchdata: dict[str, Any]) -> dict:
        name = batchdata["case"][0]
        if "error" in batchdata:
            return self._fail(name, batchdata["error"][0])
        try:
            output = super()._iteration(engine, batchdata)
            self.scores.append({"case": name, **self._score()})
        except Exception as error:
            cause = root_cause(error)
            if isinstance(cause, InputError):
                return self._fail(name, str(cause))
            logger.debug("case %s", name, exc_info=True)
            return self._fail(name, f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}")
        return output

    def _score(self) -> dict[str, float]:
        output, case = self.state.output[0], self.state.batch[0]  # after decollating and post-processing
        values = {}
        for key, metrics in self.metrics.items():
            for name, metric in metrics.items():
                value = metric(output[key][None], torch.as_tensor(case[self.truth_key][None]).to(output[key].device))
                values[name] = float(value)
        return values

    def _fail(self, name: str, message: str) -> dict:
        logger.error("case %s: %s", name, message)
        self.failures.append(f"{name}: {message}")
        return {}


def _gather(items: list) -> list:
    if idist.get_world_size() == 1:
        return items
    parts: list[list] = [[] for _ in range(idist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
