"""End the MLflow runs of an engine's handlers together with the run of the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from monai.handlers import MLFlowHandler


class TrackedRuns:
    """End the MLflow run of each handler when the engine ends: ``FINISHED``, or ``FAILED`` after an exception.

    MONAI's handler ends its run after each run of ignite's engine, and only if nothing failed. A training of several
    stages runs ignite's engine once in each stage. If the engine runs again, as a federated client does in each round,
    the handlers continue their MLflow runs.

    Args:
        handlers: handlers of the engine, before they are attached.
        metrics: names of the engine's metrics of an epoch. A handler's curve of iterations with such a name is called
            ``iteration_NAME``, since MLflow would join both.
    """

    def __init__(self, handlers: Sequence[Any], metrics: Sequence[str] = ()) -> None:
        self.handlers = [handler for handler in handlers if isinstance(handler, MLFlowHandler)]
        for handler in self.handlers:
            handler.close_on_complete = False
            if handler.tag_name in metrics:
                handler.tag_name = f"iteration_{handler.tag_name}"

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the MLflow runs after the body of a ``with`` statement."""
        try:
            yield
        except BaseException:
            self._end("FAILED")
            raise
        self._end("FINISHED")

    def _end(self, status: str) -> None:
        for handler in self.handlers:
            run = handler.cur_run
            handler.run_finish_status = status
            handler.close()
            handler.cur_run = run
