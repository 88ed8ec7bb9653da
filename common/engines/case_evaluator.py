"""Evaluation and inference over cases, of which a broken one does not stop the others."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents, engine_apply_transform
from monai.transforms import Decollated
from monai.utils import CommonKeys
from torch import Tensor

from ..errors import CasesFailedError, InputError, failure_of_case
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
from .case_results import CaseResults

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class CaseEvaluator(SupervisedEvaluator):
    """Evaluate the cases of a :class:`CaseDataset` as MONAI's evaluator does, one case a batch.

    While the network computes a case, the next one is read and prepared, and the one before is post-processed, scored
    and written, each in a thread of its own. An iteration of the engine is a finished case: handlers and metrics, such
    as MONAI's ``MeanDice`` and ``MetricsSaver``, see it after post-processing in ``state.batch`` and ``state.output``,
    lists of one dictionary. ``FORWARD_COMPLETED`` alone comes before, with the batch and the network's output.

    A case that fails, in reading, in the network or in post-processing, is reported in one line and left out of the
    scores and of the iterations; the others are done. A fault that is not the case's ends the run at once: a full
    disk, weights that are not finite, an interruption, an error of a handler.

    Where the post-processed case has a ``result``, as :class:`common.transforms.SplitClassesd` makes it, its class is
    written and scored too. Scores of the class are computed once, from all cases; they are not means over cases.

    Args:
        metrics: per entry of the post-processed output, the metrics of it: name to a function of prediction and truth
            ``(1, C, x, y, z)``, such as MONAI's metric objects, that gives one value, or a dictionary of names and
            values, which then replace its own name. ``state.metrics`` has their means over the cases where they are
            defined, NaN where they are for none; ``state.metric_details`` has the values of the cases, ``(N, 1)``.
        truth_key: entry of the case with the ground truth that a finished case is compared with. Handlers find it in
            the output under this name and as ``label``.
        scores_file: CSV of the scores, a row per case; the table is also logged.
        postprocessing: transform of the case and its output together, as MONAI's evaluators apply it.
        results_dir: folder for ``CASE_class.json``, the class and the probabilities of each case that has a result.
        class_scores: function of the probabilities ``(N, classes)``, float32, and the true classes ``(N,)``, int64, of
            all cases to names and values; in ``state.metrics`` they are called ``class NAME``. A case's true class is
            its ``class``, an index; cases without one, or without a result, are left out.
        classes_file: CSV of the true and predicted class and the probabilities, a row per case.
        class_scores_file: CSV of the class scores, ``name,value``; they are also logged.
        case_results: keeps a record beside the results of each case.
        made_by: what makes the scores, such as the SHA-256 of the weights, by names. A file of scores that lies there
            is replaced only if this evaluator made it by the same and nobody changed it since.
        kwargs: as for ``SupervisedEvaluator``.

    Raises:
        CasesFailedError: from ``run`` of every process, after the last case, if any failed; that of the first process
            names them all.
        InputError: from ``run``: two cases have one name, or a fault that is not the case's.
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
        case_results: CaseResults | None = None,
        iteration_update: Callable[[Engine, Any], Any] | None = None,
        val_handlers: Sequence | None = None,
        made_by: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(decollate=False, val_handlers=[_Completion(), *(val_handlers or ())], **kwargs)
        self.predict = iteration_update or super()._iteration
        self.data_loader: Any = _FinishedCases(self, kwargs["val_data_loader"])
        self.metrics = metrics or {}
        self.metrics_of_handlers = {*(kwargs.get("key_val_metric") or ()), *(kwargs.get("additional_metrics") or ())}
        self.truth_key = truth_key
        self.scores_file = scores_file
        self.finish = postprocessing
        self.results_dir = results_dir
        self.class_scores = class_scores
        self.classes_file = classes_file
        self.class_scores_file = class_scores_file
        self.case_results = case_results
        self.made_by = made_by
        self.failures: list[str] = []
        self.scores: list[dict[str, Any]] = []
        self.classes: list[dict[str, Any]] = []
        self.names: set[str] = set()
        self.predicting = self.complete = False

    def run(self, global_epoch: int = 1) -> None:
        self.failures, self.scores, self.classes, self.names = [], [], [], set()
        self.predicting = self.complete = False
        self.state.metrics, self.state.metric_details = {}, {}
        for file in (self.scores_file, self.classes_file, self.class_scores_file):
            if file is not None:
                check_table(file, self.made_by)
        self._internal_run_generator = None  # ignite keeps that of an interrupted run, and would end at once
        if equal := [name for name, times in Counter(_gather(self.data_loader.listed_names())).items() if times > 1]:
            raise _equal_names(equal)
        if self.state.epoch_length:
            super().run(global_epoch)
        else:
            self._end_epoch()
        if not self.complete:  # no case, or none that succeeded
            self._complete()
        if idist.get_rank() == 0:
            logger.info("%d of %d cases done", len(self.scores), len(self.scores) + len(self.failures))
        done = len(self.scores)
        if self.case_results is not None:
            self.failures += self.case_results.failed_before
            done += self.case_results.done_before
        if self.failures:
            idist.barrier()  # a process that ends has the others ended, the first one perhaps while it writes
            listed = ":\n  " + "\n  ".join(self.failures) if idist.get_rank() == 0 else "; the first process lists them"
            raise CasesFailedError(
                f"{len(self.failures)} of {done + len(self.failures)} cases failed{listed}", all_failed=not done
            )

    def fire_event(self, event_name: Any) -> None:
        """Fire an event; that of a completed model comes when the case is finished."""
        if not (self.predicting and event_name == IterationEvents.MODEL_COMPLETED):
            super().fire_event(event_name)

    def finished_cases(self, batches: Iterable[dict]) -> Iterator[tuple[dict, dict]]:
        """Yield case and output, finished, of each case that succeeds; meanwhile the next ones are on their way."""
        finishing: tuple[str, Future] | None = None
        with ThreadPoolExecutor(1) as finisher:
            for batch in batches:
                name = batch["case"][0]
                if name in self.names:
                    raise _equal_names([name])
                self.names.add(name)
                failure, output = batch["error"][0] if "error" in batch else None, {}
                if failure is None:
                    try:
                        output = self._predict(batch)
                    except Exception as error:
                        failure = self._failure(name, error)
                if finishing is not None:
                    yield from self._settle(*finishing)
                    finishing = None
                if failure is not None:
                    self._fail(name, failure)
                else:
                    finishing = name, finisher.submit(self._finish, batch, output)
                del batch, output  # three cases are in memory at most
            if finishing is not None:
                yield from self._settle(*finishing)
        self.terminate_epoch()  # fewer cases than the loader promised
        self._end_epoch()

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        """Show a finished case to the handlers."""
        case, output = batchdata
        self.state.batch, self.state.output = [case], [output]
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the network's output of a case."""
        self.state.batch, self.predicting = batch, True
        try:
            output: dict[str, Any] = self.predict(self, batch)
        finally:
            self.predicting = False
        prediction = output.get(CommonKeys.PRED)
        if isinstance(prediction, Tensor) and prediction.is_floating_point() and not _all_finite(prediction):
            if not all(map(_all_finite, [*self.network.parameters(), *self.network.buffers()])):
                raise _WeightsError("the network's weights hold values that are not finite; use other weights")
            raise InputError("the network's output holds values that are not finite; check the scan's intensities")
        return output

    def _finish(
        self, batch: dict[str, Any], output: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any] | None]:
        """Post-process, write and score a case: the case, its output, the row of its scores, and that of its class."""
        batch, output = (Decollated(keys=None, detach=True)(data)[0] for data in (batch, output))
        if self.case_results is not None:
            self.case_results.begin(batch["case"])
        if self.finish is not None:
            batch, output = engine_apply_transform(batch, output, self.finish)
        if self.truth_key in batch:
            truth, prediction = torch.as_tensor(batch[self.truth_key]), output.get(CommonKeys.PRED)
            truth = truth.to(prediction.device) if isinstance(prediction, Tensor) else truth
            output.update({self.truth_key: truth, CommonKeys.LABEL: truth})
        case = {**batch, **output}
        if self.results_dir is not None and "result" in case:
            write_result(case["case"], case["result"], Path(self.results_dir) / f"{case['case']}_class.json")
        if self.case_results is not None:
            self.case_results.done(case["case"])
        row = {"case": case["case"]}
        for key, metrics in self.metrics.items():
            for name, metric in metrics.items():
                value = metric(case[key][None], torch.as_tensor(case[self.truth_key][None]).to(case[key].device))
                row.update(value if isinstance(value, Mapping) else {name: float(value)})
        if self.class_scores is None or "result" not in case or "class" not in case:
            return batch, output, row, None
        return batch, output, row, class_row(case["case"], int(case["class"]), case["result"])

    def _settle(self, name: str, finishing: Future) -> Iterator[tuple[dict, dict]]:
        """Wait for the case that is being finished."""
        try:
            batch, output, row, class_of_case = finishing.result()
        except Exception as error:
            self._fail(name, self._failure(name, error))
            return
        self.scores.append(row)
        if class_of_case is not None:
            self.classes.append(class_of_case)
        yield batch, output
        self.state.batch = self.state.output = None

    def _failure(self, name: str, error: Exception) -> str:
        """Return what a case's failure is reported as.

        Raises:
            InputError: it is not the case's.
        """
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, _WeightsError):
                raise cause
            if isinstance(cause, OSError) and cause.errno in _FULL:
                raise InputError(
                    f"case {name}: {cause.filename or 'results'} cannot be written ({cause.strerror}); "
                    f"{len(self.scores)} of {self.state.epoch_length} cases are done; free space and run again"
                ) from error
            cause = cause.__cause__ or cause.__context__
        return failure_of_case(error, name).removeprefix(f"{name}: ")

    def _fail(self, name: str, message: str) -> None:
        logger.error("case %s: %s", name, message)
        self.failures.append(f"{name}: {message}")
        if self.case_results is not None:
            self.case_results.failed(name, message)

    def _end_epoch(self) -> None:
        """Skip the metrics of handlers in every process if one has no case that succeeded: they would wait for it."""
        if not all(_gather([bool(self.scores)])):
            self.terminate(skip_completed=True)

    def _complete(self) -> None:
        """Gather the scores of all processes into ``state``, write them, and log them."""
        self.complete = True
        self.failures, scores = _gather(self.failures), _gather(self.scores)
        for name, mean in mean_scores(scores).items():
            if name in self.metrics_of_handlers:
                logger.warning("score '%s': a metric of a handler has the same name, and is in state.metrics", name)
                continue
            self.state.metrics[name] = mean
            self.state.metric_details[name] = torch.tensor([[row[name]] for row in scores])
        self.scores = sorted(scores, key=lambda row: row["case"])
        if idist.get_rank() == 0 and self.scores_file is not None and self.scores:
            write_scores(self.scores, self.scores_file, self.made_by)
            logger.info("scores of each case are in %s\n%s", self.scores_file, score_table(self.scores))
        if self.class_scores is not None:
            self._score_classes(self.class_scores, sorted(_gather(self.classes), key=lambda row: row["case"]))

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


class _WeightsError(InputError):
    """Report weights with which every case would fail."""


class _Completion:
    """The first handler: completes the scores before others read them."""

    @classmethod
    def attach(cls, engine: CaseEvaluator) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, cls.end_after_last_case)
        engine.add_event_handler(Events.EPOCH_COMPLETED, engine._complete)

    @staticmethod
    def end_after_last_case(engine: CaseEvaluator) -> None:
        if engine.state.iteration == engine.state.epoch_length:  # without failures the loader is not asked again
            engine._end_epoch()


class _FinishedCases:
    """A loader of finished cases, whose next batch is read while the current one is in use."""

    def __init__(self, evaluator: CaseEvaluator, loader: Iterable) -> None:
        self.evaluator = evaluator
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[dict, dict]]:
        return self.evaluator.finished_cases(self._read_ahead())

    def listed_names(self) -> list[str]:
        """Return the names of the cases, as far as the loader's data set lists them."""
        dataset = getattr(self.loader, "dataset", None)
        cases = getattr(dataset, "data", dataset)
        return [case["case"] for case in cases if "case" in case] if isinstance(cases, list) else []

    def _read_ahead(self) -> Iterator[dict]:
        batches = iter(self.loader)
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = reader.submit(next, batches, None)
                yield batch
                del batch


def _equal_names(names: list[str]) -> InputError:
    return InputError(
        f"two cases are called {', '.join(names)}, and one's results would replace the other's; "
        "give each a name of its own as its 'case' in the data list"
    )


def _all_finite(values: Tensor) -> bool:
    """Return whether no value is infinite or NaN; a sum is several times as fast as a look at each."""
    return bool(values.sum(dtype=torch.float32).isfinite())


def _gather(items: list) -> list:
    if idist.get_world_size() == 1:
        return items
    parts: list[list] = [[] for _ in range(idist.get_world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]
