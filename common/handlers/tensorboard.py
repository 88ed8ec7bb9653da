"""Write curves for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine
from monai.handlers import TensorBoardStatsHandler


class EpochCurves:
    """Write the metrics of each epoch to ``ckpt_dir/tensorboard``, in the first process of a distributed run.

    A trainer that also holds the metrics of its validation needs no second handler for the evaluator. TensorBoard
    reads one growing file in a folder. A metric that is not finite in an epoch has no point there.

    Args:
        ckpt_dir: folder of the training.
    """

    def __init__(self, ckpt_dir: str | Path) -> None:
        self.log_dir = Path(ckpt_dir) / "tensorboard"

    def attach(self, engine: Engine) -> None:
        """Attach the curves to an engine."""
        if idist.get_rank() == 0:
            TensorBoardStatsHandler(
                log_dir=str(self.log_dir), iteration_log=False, epoch_event_writer=_write_metrics
            ).attach(engine)


def _write_metrics(engine: Engine, writer: Any) -> None:
    for name, value in engine.state.metrics.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            writer.add_scalar(name, value, engine.state.epoch)
    writer.flush()
