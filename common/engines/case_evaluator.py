"""Evaluate or infer cases; a broken case does not stop the others."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents, engine_apply_transform
from monai.transforms import Decollated
from monai.utils import CommonKeys
from torch import Tensor

from ..errors import CasesFailedError, InputError, failure_of_case
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
    write_result,
    write_scores,
)
from .case_clock import CaseClock, peak_mb
from .case_results import DONE, FAILED, CaseResults
from .finished_cases import FinishedCases
from .tracked_runs import TrackedRuns

logger = logging.getLogger(__name__)

SCORES, CLASSES, CLASS_SCORES = "scores.csv", "classes.csv", "class_scores.csv"
FULL = (errno.ENOSPC, errno.EDQUOT)


class CaseEvaluator(SupervisedEvaluator):
    """Evaluate the cases of a :class:`CaseDataset` as MONAI's evaluator does, with one case in a batch.

    While the network computes a case, one thread reads and prepares the next case. Another thread post-processes,
    scores and writes the previous case. An iteration of the engine is a finished case: handlers and metrics, such as
    MONAI's ``MeanDice`` and ``MetricsSaver``, see it after post-processing in ``state.batch`` and ``state.output``,
    lists of one dictionary. Only ``FORWARD_COMPLETED`` fires earlier, with the batch and the network's output.

    A case that fails in reading, in the network or in post-processing is reported in one line. It is left out of the
    scores and of the iterations, and the other cases are done. A fault of the whole run ends the run at once: a full
    disk, weights that are not finite, an interruption, an error of a handler.

    Where the post-processed case has a ``result``, as :class:`common.transforms.SplitClassesd` makes it, its class is
    written and scored too. Scores of the class are computed once, from all cases; they are not means over cases.

    Args:
        metrics: per entry of the post-processed output, its metrics: name to a function of prediction and ground truth
            ``(1, C, x, y, z)``, such as MONAI's metric objects. The function returns one value, or a dictionary of
            names and values, which then replace its own name. ``state.metrics`` has the means over the cases where a
            value is defined, NaN if no case has one. ``state.metric_details`` has the values of the cases, ``(N, 1)``.
        truth_key: entry of the case with the ground truth for a finished case. Handlers find it in the output under
            this name and as ``label``.
        postprocessing: transform of the case and its output together, as MONAI's evaluators apply it.
        results_dir: folder for ``CASE_class.json``, the class and the probabilities of each case that has a result.
        class_scores: function of the probabilities ``(N, classes)``, float32, and the true classes ``(N,)``, int64, of
            all cases; returns names and values, which ``state.metrics`` has as ``class NAME``. The true class of a case
            is its ``class``, an index. Cases without a true class or without a result are left out.
        scores_dir: folder for tables. ``scores.csv`` has a row for each case. With class scores, ``classes.csv`` has
            the true and the predicted class and the probabilities of each case, and ``class_scores.csv`` has
            ``name,value``. The tables are also logged.
        case_results: keeps a record beside the results of each case.
        made_by: origin of the scores, such as the SHA-256 of the weights, by names. A table in ``scores_dir`` is
            replaced only if the same origin made it and nobody changed it since.
        kwargs: passed on to ``SupervisedEvaluator``.

    Attributes:
        failures: reason of the failure of each case that failed, by the name of the case.

    Raises:
        CasesFailedError: by ``run`` in every process, after the last case, if any failed; the first process names all.
        InputError: by ``run``, if two cases have one name, or if the whole run has a fault.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Callable]] | None = None,
        truth_key: str = "truth",
        postprocessing: Callable[[dict], dict] | None = None,
        results_dir: str | Path | None = None,
        class_scores: Callable[[Tensor, Tensor], Mapping[str, float]] | None = None,
        scores_dir: str | Path | None = None,
        case_results: CaseResults | None = None,
        iteration_update: Callable[[Engine, Any], Any] | None = None,
        val_handlers: Sequence | None = None,
        made_by: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.tracked_runs = TrackedRuns(val_handlers or ())
        super().__init__(decollate=False, val_handlers=[_Completion(), *(val_handlers or ())], **kwargs)
        self.predict = iteration_update or super()._iteration
        self.data_loader: Any = FinishedCases(self, kwargs["val_data_loader"])
        self.metrics = metrics or {}
        self.metrics_of_handlers = {*(kwargs.get("key_val_metric") or ()), *(kwargs.get("additional_metrics") or ())}
        self.truth_key = truth_key
        self.finish = postprocessing
        self.results_dir = results_dir
        self.class_scores = class_scores
        self.scores_dir = Path(scores_dir) if scores_dir is not None else None
        self.case_results = case_results
        self.made_by = made_by
        self.clock = CaseClock(None if case_results is None else case_results.case_timeout)
        self.failures: dict[str, str] = {}
        self.scores: list[dict[str, Any]] = []
        self.classes: list[dict[str, Any]] = []
        self.names: set[str] = set()
        self.predicting = self.complete = False

    @property
    def one_at_a_time(self) -> bool:
        """Return whether no case may begin before the previous one has ended."""
        return self.case_results is not None and self.case_results.one_at_a_time

    def start(self, name: str) -> None:
        """Note that the work on a case begins."""
        if self.case_results is not None:
            self.case_results.started(name)

    def run(self, global_epoch: int = 1) -> None:
        """Evaluate all cases."""
        with self.tracked_runs.ending():
            self._run(global_epoch)

    def _run(self, global_epoch: int) -> None:
        self.failures, self.scores, self.classes, self.names = {}, [], [], set()
        self.predicting = self.complete = False
        self.state.metrics, self.state.metric_details = {}, {}
        if self.scores_dir is not None:
            for table in (SCORES,) if self.class_scores is None else (SCORES, CLASSES, CLASS_SCORES):
                check_table(self.scores_dir / table, self.made_by)
        self._internal_run_generator = None  # ignite keeps that of an interrupted run, and would end at once
        if equal := [name for name, times in Counter(gather(self.data_loader.listed_names())).items() if times > 1]:
            raise _equal_names(equal)
        if self.state.epoch_length:
            if self.case_results is not None:
                self.case_results.machine = self._machine()
            try:
                super().run(global_epoch)
            finally:
                self.data_loader.close()
                if self.case_results is not None:
                    self.case_results.close()
        else:
            self._end_epoch()
        if not self.complete:  # no case, or none that succeeded
            self._complete()
        if idist.get_rank() == 0:
            logger.info("%d of %d cases done", len(self.scores), len(self.scores) + len(self.failures))
        done = len(self.scores)
        failed = list(self.failures)
        if self.case_results is not None:
            failed += self.case_results.failed_before
            done += self.case_results.done_before
        if failed:
            idist.barrier()  # a process that ends has the others ended, the first one perhaps while it writes
            named = f": {', '.join(failed)}" if idist.get_rank() == 0 else "; the first process names them"
            if idist.get_rank() == 0 and failed == list(self.failures)[:1]:
                named += f" ({self.failures[failed[0]]})"
            raise CasesFailedError(f"{len(failed)} of {done + len(failed)} cases failed{named}", all_failed=not done)

    def fire_event(self, event_name: Any) -> None:
        """Fire an event; ``MODEL_COMPLETED`` waits until the case is finished."""
        if not (self.predicting and event_name == IterationEvents.MODEL_COMPLETED):
            super().fire_event(event_name)

    def finished_cases(self, batches: Generator[dict]) -> Generator[tuple[dict, dict]]:
        """Yield each case that succeeds and its output after post-processing, while the next cases are in progress."""
        finishing: tuple[str, Future] | None = None
        with closing(batches), ThreadPoolExecutor(1) as finisher:
            for batch in batches:
                name = batch["case"][0]
                if name in self.names:
                    raise _equal_names([name])
                self.names.add(name)
                failure, output = batch["error"][0] if "error" in batch else None, {}
                if failure is None:
                    try:
                        with self.clock.working(name):
                            output = self._predict(batch)
                    except Exception as error:
                        failure = self._failure(name, error)
                if finishing is not None:
                    yield from self._settle(*finishing)
                    finishing = None
                if failure is not None:
                    self._fail(name, failure)
                else:
                    finishing = name, finisher.submit(self._finish_in_time, name, batch, output)
                del batch, output  # three cases are in memory at most
                if finishing is not None and self.one_at_a_time:
                    yield from self._settle(*finishing)
                    finishing = None
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

    def _finish_in_time(self, name: str, *data: dict[str, Any]) -> tuple:
        with self.clock.working(name):
            return self._finish(*data)

    def _machine(self) -> dict[str, str]:
        """Return device and precision of the network."""
        device = torch.device(self.state.device)
        precision_on = getattr(self.inferer, "precision_on", None)
        return {"device": device.type, **({} if precision_on is None else {"precision": precision_on(device)})}

    def _finish(
        self, batch: dict[str, Any], output: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any] | None]:
        """Post-process, write and score a case; return it, its output, its row of scores and its row of classes."""
        batch, output = (Decollated(keys=None, detach=True)(data)[0] for data in (batch, output))
        if self.case_results is not None:
            self.case_results.begin(batch["case"])
            batch["provenance"] = self.case_results.provenance()
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
            batch.pop("provenance", None)
            volumes = output.pop("volumes_ml", None)
            self.case_results.done(case["case"], self.clock.so_far(case["case"]), volumes)
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
        if self.case_results is not None:
            self.case_results.settled(name, DONE, "", self.clock.so_far(name), peak_mb())
        if class_of_case is not None:
            self.classes.append(class_of_case)
        yield batch, output
        self.state.batch = self.state.output = None

    def _failure(self, name: str, error: Exception) -> str:
        """Return the line that reports the failure of a case.

        Raises:
            InputError: if the whole run has the fault.
        """
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, _WeightsError):
                raise cause
            if isinstance(cause, OSError) and cause.errno in FULL:
                raise InputError(
                    f"case {name}: {cause.filename or 'results'} cannot be written ({cause.strerror}); "
                    f"{len(self.scores)} of {self.state.epoch_length} cases are done; free space and run again"
                ) from error
            cause = cause.__cause__ or cause.__context__
        return failure_of_case(error, name).removeprefix(f"{name}: ")

    def _fail(self, name: str, message: str) -> None:
        logger.error("case %s: %s", name, message)
        self.failures[name] = message
        if self.case_results is not None:
            self.case_results.failed(name, message, self.clock.so_far(name))
            self.case_results.settled(name, FAILED, message, self.clock.so_far(name), peak_mb())

    def _end_epoch(self) -> None:
        """Skip the metrics of handlers in every process if one has no case that succeeded: they would wait for it."""
        if not all(gather([bool(self.scores)])):
            self.terminate(skip_completed=True)

    def _complete(self) -> None:
        """Gather the scores of all processes into ``state``, write them, and log them."""
        self.complete = True
        self.failures, scores = dict(gather([*self.failures.items()])), gather(self.scores)
        for name, mean in mean_scores(scores).items():
            if name in self.metrics_of_handlers:
                logger.warning("score '%s': a metric of a handler has the same name, and is in state.metrics", name)
                continue
            self.state.metrics[name] = mean
            self.state.metric_details[name] = torch.tensor([[row[name]] for row in scores])
        self.scores = sorted(scores, key=lambda row: row["case"])
        if idist.get_rank() == 0 and self.case_results is not None:
            self.case_results.write_table()
        if idist.get_rank() == 0 and self.scores_dir is not None and self.scores:
            write_scores(self.scores, self.scores_dir / SCORES, self.made_by)
            logger.info("scores of each case are in %s\n%s", self.scores_dir / SCORES, score_table(self.scores))
        if self.class_scores is not None:
            self._score_classes(self.class_scores, sorted(gather(self.classes), key=lambda row: row["case"]))

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
            if self.scores_dir is not None:
                write_scores(rows, self.scores_dir / CLASSES, self.made_by)
                write_class_scores(values, self.scores_dir / CLASS_SCORES, self.made_by)
            logger.info("classes of %d cases\n%s", len(rows), class_table(rows, values))


class _WeightsError(InputError):
    """Report weights that make every case fail."""


class _Completion:
    """Complete the scores, as the first handler, before others read them."""

    @classmethod
    def attach(cls, engine: CaseEvaluator) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, cls.end_after_last_case)
        engine.add_event_handler(Events.EPOCH_COMPLETED, engine._complete)

    @staticmethod
    def end_after_last_case(engine: CaseEvaluator) -> None:
        if engine.state.iteration == engine.state.epoch_length:  # without failures the loader is not asked again
            engine._end_epoch()


def _equal_names(names: list[str]) -> InputError:
    return InputError(
        f"two cases are called {', '.join(names)}, so the results of one would replace those of the other; "
        "give each case a different 'case' in the data list"
    )


def _all_finite(values: Tensor) -> bool:
    """Return whether no value is infinite or NaN."""
    # a sum is several times as fast as a look at each value
    return bool(values.sum(dtype=torch.float32).isfinite())
