"""Adapt the handlers of a trainer to a training that runs ignite's engine once in each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader

from .batches import samples_of
from .tracked_runs import TrackedRuns


class StageHandlers:
    """Hold the handlers of a trainer, and give them batches, weights and MLflow runs as MONAI's trainers do.

    A handler of another package finds lists of samples in ``state.batch`` and ``state.output``. Without such a handler
    they stay batches, since the split lets the processor wait for the GPU. The run of an ``MLFlowHandler`` spans all
    stages. A ``CheckpointLoader`` loads once, at the beginning of a new training.

    Args:
        handlers: handlers of the trainer, before they are attached.
        metrics: names of the trainer's metrics of an epoch, see :class:`TrackedRuns`.
    """

    def __init__(self, handlers: Sequence[Any], metrics: Sequence[str]) -> None:
        self.loaders = [handler for handler in handlers if isinstance(handler, CheckpointLoader)]
        self.tracked_runs = TrackedRuns(handlers, metrics)
        self.need_samples = any(_is_foreign(handler) for handler in handlers)

    def split_batch(self, engine: Engine) -> None:
        """Split the batch and its outputs into samples if a handler needs them."""
        if self.need_samples:
            engine.state.batch, engine.state.output = samples_of(engine.state.batch), samples_of(engine.state.output)

    def remove_loaders(self, engine: Engine) -> None:
        """Remove the handlers that load weights: each start of ignite's engine would load them over trained ones."""
        for loader in self.loaders:
            engine.remove_event_handler(loader, Events.STARTED)
        self.loaders = []


def _is_foreign(handler: Any) -> bool:
    """Return whether a handler belongs to another package; the handlers of this one do not look at the samples."""
    return type(handler).__module__.partition(".")[0] != __name__.partition(".")[0]
