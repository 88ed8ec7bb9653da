"""Evaluation and inference over cases, of which a broken one does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from monai.data import decollate_batch
from monai.engines import SupervisedEvaluator
from torch import Tensor

from ..errors import InputError, root_cause
from ..reporting import (
    check_table,
    class_probabilities,
    class_row,
    class_table,
    mean_scores,
    named_class_scores,
    score_table,
    write_class_scores,
    write_result,
    write_scores,
)

logger = logging.getLogger(__name__)


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over a :class:`CaseDataset`, one case a batch.

    While the network computes a case, the next one is read and prepared and the one before is brought back, scored and
    written, each in a thread of its own. A case that failed, in reading, in the network or in writing, is reported in
    one line and left out of the scores; the others go on.

    Where the post-processed case has a ``result``, as :class:`common.transforms.SplitClassesd` makes it, its class is
    written and scored too. Accuracy and the like are no means over cases: they are computed once, from all of them.

    Args:
        metrics: per entry of the post-processed output, the metrics of it: name to a function of prediction and truth
            ``(1, C, x, y, z)``, such as MONAI's metric objects, that gives one value, or a dictionary of names and
            values, which then stand for its own name.
        truth_key: the entry of the case that holds the truth.
        scores_file: CSV of the scores, a row per case; the table is also logged.
        postprocessing: of the case and its output together, as MONAI's evaluators do it.
        results_dir: folder for ``CASE_class.json``, the class and the probabilities of each case that has a result.
        class_scores: function of the probabilities ``(N, classes)``, float32, and the true classes ``(N,)``, int64, of
            all cases to names and values; in ``state.metrics`` they are called ``class NAME``. A case's true class is
            its ``class``, an index; cases without one, or without a result, are left out.
        classes_file: CSV of the true and predicted class and the probabilities, a row per case.
        class_scores_file: CSV of the class scores, ``name,value``; they are also logged.
        made_by: what makes the scores, such as the SHA-256 of the weights, by names. A file of scores that lies there
            is replaced only if this evaluator made it by the same and nobody changed it since.
        kwargs: as for ``SupervisedEvaluator``.

    Raises:
        InputError: from ``run`` of every process, after the last case, if any failed; the first one's names them all.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Callable]] | None = None,
        truth_key: str = "truth",
        scores_file: str | Path | None = None,
        postprocessing: Callable[[dict], dict] | None = None,
        results_dir: str | Path | None = None,
        class_scores: Callable[[Tensor, Tensor], Mapping[str, float]] | None = None,
        classes_file: str | Path | None = None,
        class_scores_file: str | Path | None = None,
        made_by: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(decollate=False, **kwargs)
        self.data_loader: Any = _Ahead(kwargs["val_data_loader"])
        self.metrics = metrics or {}
        self.truth_key = truth_key
        self.scores_file = scores_file
        self.finish = postprocessing
        self.results_dir = results_dir
        self.class_scores = class_scores
        self.classes_file = classes_file
        self.class_scores_file = class_scores_file
        self.made_by = made_by
        self.failures: list[str] = []
        self.scores: list[dict[str, Any]] = []
        self.classes: list[dict[str, Any]] = []
        self.finishing: tuple[str, Future] | None = None

    def run(self, global_epoch: int = 1) -> None:
        self.failures, self.scores, self.classes, self.finishing = [], [], [], None
        for file in (self.scores_file, self.classes_file, self.class_scores_file):
            if file is not None:
                check_table(file, self.made_by)
        self._internal_run_generator = None  # ignite keeps that of an interrupted run, and would end at once
        if self.state.epoch_length:
            with ThreadPoolExecutor(1) as self.finisher:
                super().run(global_epoch)
                self._settle()
        failures, scores = _gather(self.failures), sorted(_gather(self.scores), key=lambda row: row["case"])
        self.state.metrics.update(mean_scores(scores))
        if idist.get_rank() == 0:
            if self.scores_file is not None and scores:
                write_scores(scores, self.scores_file, self.made_by)
                logger.info("scores of each case are in %s\n%s", self.scores_file, score_table(scores))
            logger.info("%d of %d cases done", len(scores), len(scores) + len(failures))
        if self.class_scores is not None:
            self._score_classes(self.class_scores, sorted(_gather(self.classes), key=lambda row: row["case"]))
        if failures:
            idist.barrier()  # a process that ends has the others ended, the first one perhaps while it writes
            listed = ":\n  " + "\n  ".join(failures) if idist.get_rank() == 0 else "; the first process lists them"
            raise InputError(f"{len(failures)} of {len(scores) + len(failures)} cases failed{listed}")

    def _iteration(self, engine: CaseEvaluator, batchdata: dict[str, Any]) -> dict:
        name, output = batchdata["case"][0], {}
        failure: Exception | None = None
        if "error" in batchdata:
            failure = InputError(batchdata["error"][0])
        else:
            try:
                output = super()._iteration(engine, batchdata)
            except Exception as error:
                failure = error
        self._settle()
        if failure is not None:
            self._fail(name, failure)
        else:
            self.finishing = name, self.finisher.submit(self._finish, decollate_batch({**batchdata, **output})[0])
        return output

    def _score_classes(
        self, class_scores: Callable[[Tensor, Tensor], Mapping[str, float]], rows: list[dict[str, Any]]
    ) -> None:
        """Score the classes of the cases of all processes."""
        if not rows:
            return
        _, probabilities, true = class_probabilities(rows)
        values = class_scores(torch.tensor(probabilities), torch.tensor(true))
        self.state.metrics.update(named_class_scores(values))
        if idist.get_rank() == 0:
            if self.classes_file is not None:
                write_scores(rows, self.classes_file, self.made_by)
            if self.class_scores_file is not None:
                write_class_scores(values, self.class_scores_file, self.made_by)
            logger.info("classes of %d cases\n%s", len(rows), class_table(rows, values))

    def _finish(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Bring one case's output back, write it, score it: the row of its scores, and that of its class."""
        if self.finish is not None:
            case = self.finish(case)
        if self.results_dir is not None and "result" in case:
            write_result(case["case"], case["result"], Path(self.results_dir) / f"{case['case']}_class.json")
        row = {"case": case["case"]}
        for key, metrics in self.metrics.items():
            for name, metric in metrics.items():
                value = metric(case[key][None], torch.as_tensor(case[self.truth_key][None]).to(case[key].device))
                row.update(value if isinstance(value, Mapping) else {name: float(value)})
        if self.class_scores is None or "result" not in case or "class" not in case:
            return row, None
        return row, class_row(case["case"], int(case["class"]), case["result"])

    def _settle(self) -> None:
        """Wait for the case that is being finished."""
        if self.finishing is not None:
            (name, future), self.finishing = self.finishing, None
            try:
                row, class_of_case = future.result()
            except Exception as error:
                self._fail(name, error)
            else:
                self.scores.append(row)
                if class_of_case is not None:
                    self.classes.append(class_of_case)

    def _fail(self, name: str, error: Exception) -> None:
        cause = root_cause(error)
        message = str(cause)
        if not isinstance(cause, InputError):
            logger.debug("case %s", name, exc_info=error)
            message = f"{type(cause).__name__}: {message.strip().partition(chr(10))[0]}"
        logger.error("case %s: %s", name, message)
        self.failures.append(f"{name}: {message}")


class _Ahead:
    """A loader whose next batch is prepared while the current one is in use."""

    def __init__(self, loader: Iterable) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict]:
        batches = iter(self.loader)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                yield batch


def _gather(items: list) -> list:
    if idist.get_world_size() == 1:
        return items
    parts: list[list] = [[] for _ in range(idist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
