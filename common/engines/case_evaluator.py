"""Evaluate or infer cases; a broken case does not stop the others."""

from __future__ import annotations

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

from ..errors import CasesFailedError
from ..processes import gather
from ..reporting import write_result
from .case_clock import CaseClock, peak_mb
from .case_failures import check_finite, equal_names, failed_cases, reason_of_failure
from .case_record import DONE, FAILED
from .case_results import CaseResults
from .case_scores import CaseScores
from .finished_cases import FinishedCases
from .tracked_runs import TrackedRuns

logger = logging.getLogger(__name__)


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
        metrics: mapping from entries of the post-processed output to their metrics. A metric is a name and a callable
            (prediction, ground truth), both ``(1, C, x, y, z)``, such as MONAI's metric objects. It returns one value,
            or a dictionary of names and values, which then replace its own name. ``state.metrics`` has the means over
            the cases where a value is defined, NaN if no case has one. ``state.metric_details`` has the values of the
            cases, ``(N, 1)``.
        truth_key: entry of the case with the ground truth for a finished case. Handlers find it in the output under
            this name and as ``label``.
        postprocessing: transform of the case and its output together, as MONAI's evaluators apply it.
        results_dir: folder for ``CASE_class.json``, the class and the probabilities of each case that has a result.
        class_scores: callable (probabilities ``(N, classes)``, float32, true classes ``(N,)``, int64) -> values by name
            over all N cases, which ``state.metrics`` has as ``class NAME``. The true class of a case
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
        self.scores = CaseScores(metrics or {}, truth_key, class_scores, scores_dir, made_by)
        self.metrics_of_handlers = {*(kwargs.get("key_val_metric") or ()), *(kwargs.get("additional_metrics") or ())}
        self.truth_key = truth_key
        self.finish = postprocessing
        self.results_dir = results_dir
        self.case_results = case_results
        self.clock = CaseClock(None if case_results is None else case_results.case_timeout)
        self.failures: dict[str, str] = {}
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
        self.failures, self.names = {}, set()
        self.predicting = self.complete = False
        self.state.metrics, self.state.metric_details = {}, {}
        self.scores.begin()
        self._internal_run_generator = None  # ignite keeps that of an interrupted run, and would end at once
        if equal := [name for name, times in Counter(gather(self.data_loader.listed_names())).items() if times > 1]:
            raise equal_names(equal)
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
            logger.info("%d of %d cases done", len(self.scores.rows), len(self.scores.rows) + len(self.failures))
        done, failed = len(self.scores.rows), list(self.failures)
        if self.case_results is not None:
            failed += self.case_results.failed_before
            done += self.case_results.done_before
        if failed:
            idist.barrier()  # torchrun ends all processes when one ends; the first one may still write
            named = "; the first process names them" if idist.get_rank() else f": {failed_cases(failed, self.failures)}"
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
                    raise equal_names([name])
                self.names.add(name)
                failure, output = batch["error"][0] if "error" in batch else None, {}
                if failure is None:
                    try:
                        with self.clock.working(name):
                            output = self._predict(batch)
                    except Exception as error:
                        failure = self._reason(name, error)
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
        check_finite(output, self.network)
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
        return batch, output, *self.scores.of_case(case)

    def _settle(self, name: str, finishing: Future) -> Iterator[tuple[dict, dict]]:
        """Wait for the case that is being finished."""
        try:
            batch, output, row, class_of_case = finishing.result()
        except Exception as error:
            self._fail(name, self._reason(name, error))
            return
        self.scores.add(row, class_of_case)
        if self.case_results is not None:
            self.case_results.settled(name, DONE, "", self.clock.so_far(name), peak_mb())
        yield batch, output
        self.state.batch = self.state.output = None

    def _reason(self, name: str, error: Exception) -> str:
        return reason_of_failure(name, error, f"{len(self.scores.rows)} of {self.state.epoch_length}")

    def _fail(self, name: str, message: str) -> None:
        logger.error("case %s: %s", name, message)
        self.failures[name] = message
        if self.case_results is not None:
            self.case_results.failed(name, message, self.clock.so_far(name))
            self.case_results.settled(name, FAILED, message, self.clock.so_far(name), peak_mb())

    def _end_epoch(self) -> None:
        """Skip the metrics of handlers in every process if one has no case that succeeded: they would wait for it."""
        if not all(gather([bool(self.scores.rows)])):
            self.terminate(skip_completed=True)

    def _complete(self) -> None:
        """Gather failures and scores of all processes, and write the tables."""
        self.complete = True
        self.failures = dict(gather([*self.failures.items()]))
        if idist.get_rank() == 0 and self.case_results is not None:
            self.case_results.write_table()
        self.scores.complete(self.state, self.metrics_of_handlers)


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
