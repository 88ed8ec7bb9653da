"""Write curves for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch.utils.tensorboard import SummaryWriter


class EpochCurves:
    """Write the metrics of each epoch to ``ckpt_dir/tensorboard``, in the first process of a distributed run.

    A trainer that also holds the metrics of its validation needs no second handler for the evaluator. TensorBoard
    reads one growing file in a folder. A metric that is not finite in an epoch has no point there. The folder is made
    when the engine starts, so a training that is refused before leaves none.

    Args:
        ckpt_dir: folder of the training.
    """

    def __init__(self, ckpt_dir: str | Path) -> None:
        self.log_dir = Path(ckpt_dir) / "tensorboard"
        self.writer: SummaryWriter | None = None

    def attach(self, engine: Engine) -> None:
        """Attach the curves to an engine."""
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._open)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_metrics)

    def _open(self) -> None:
        if self.writer is None:  # each stage of a training starts the engine
            self.writer = SummaryWriter(str(self.log_dir))

    def _write_metrics(self, engine: Engine) -> None:
        assert self.writer is not None
        for name, value in engine.state.metrics.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                self.writer.add_scalar(name, value, engine.state.epoch)
        self.writer.flush()
