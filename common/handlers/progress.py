"""Show the progress of an engine on a terminal and in a log."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import Evaluator

logger = logging.getLogger(__name__)
LINES = 10  # log lines for all cases


class Progress(ProgressBar):
    """Show a bar that fits the terminal, or log a line for each tenth of the cases without a terminal.

    In a distributed run only the first process does. The trainer logs a line for each epoch, so this handler logs none
    for a training.

    Args:
        desc: name of the run, such as ``training``.
    """

    def __init__(self, desc: str) -> None:
        super().__init__(desc=desc, dynamic_ncols=True)
        self.name = desc

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        """Attach the bar, or the log lines, to an engine."""
        if idist.get_rank() > 0:
            return
        if sys.stderr.isatty():
            super().attach(engine, *args, **kwargs)
        elif isinstance(engine, Evaluator):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._log)

    def _log(self, engine: Engine) -> None:
        done, cases = engine.state.iteration, engine.state.epoch_length
        if cases is not None and (done % math.ceil(cases / LINES) == 0 or done == cases):
            logger.info("%s: %d of %d cases", self.name, done, cases)
