"""Write curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine
from monai.handlers import TensorBoardStatsHandler


class EpochCurves:
    """Write the metrics of each epoch to ``ckpt_dir/tensorboard``, in the first process of a distributed run.

    Args:
        ckpt_dir: folder of the training.
    """

    def __init__(self, ckpt_dir: str | Path) -> None:
        self.log_dir = Path(ckpt_dir) / "tensorboard"

    def attach(self, engine: Engine) -> None:
        """Attach the curves to an engine."""
        if idist.get_rank() == 0:
            TensorBoardStatsHandler(
                log_dir=str(self.log_dir), iteration_log=False, output_transform=lambda output: None
            ).attach(engine)
