"""Measure the epochs of a training, and estimate the time of those that remain."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

REMEMBERED = 10  # epochs that the estimate averages over


def duration(seconds: float) -> str:
    """Return a time as text with two or three digits: ``0.4 s``, ``41 s``, ``7 min``, ``3 h 20 min`` or ``12 days``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 600:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 100 else f"{round(hours / 24)} days"


def count_validations(first: int, last: int, val_interval: int) -> int:
    """Return how many epochs of a stage, after ``first`` up to its ``last``, end with a validation."""
    whole = last // val_interval - first // val_interval
    return whole + (1 if last > first and last % val_interval else 0)


class EpochClock:
    """Measure the two parts of an epoch, the updates and the validation with the files that follow it.

    Args:
        now: callable () -> time in s.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.started = self.trained = 0.0
        self.updates: deque[float] = deque(maxlen=REMEMBERED)  # s
        self.validations: deque[float] = deque(maxlen=REMEMBERED)  # s

    def begin_stage(self) -> None:
        """Drop the times of the stage before, which may have trained another network."""
        self.updates.clear()
        self.validations.clear()

    def begin_epoch(self) -> None:
        """Note the time at which an epoch begins."""
        self.started = self.trained = self.now()

    def end_updates(self) -> None:
        """Note the time at which the updates of the epoch end."""
        self.trained = self.now()

    def end_epoch(self, is_validated: bool) -> float:
        """Return the time of the whole epoch in s."""
        ended = self.now()
        self.updates.append((self.trained if is_validated else ended) - self.started)
        if is_validated:
            self.validations.append(ended - self.trained)
        return ended - self.started

    def time_left(
        self, spans: Sequence[tuple[int, int]], val_interval: int | None = None, at_most: bool = False
    ) -> str:
        """Return the time of the epochs to come as text for the log, as if all stages had the speed of this one.

        Args:
            spans: for each stage to come, its epochs that are done and its last epoch.
            val_interval: number of epochs between validations in a stage; None for no validation.
            at_most: whether the training may end before its last epoch.

        Returns:
            such as ``", at most 7 min left"``; ``""`` if no epoch is left.
        """
        epochs = sum(last - first for first, last in spans)
        validations = sum(count_validations(first, last, val_interval) for first, last in spans if val_interval)
        seconds = epochs * _mean(self.updates) + validations * _mean(self.validations)
        return f", {'at most ' if at_most else ''}{duration(seconds)} left" if epochs else ""


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(known) if (known := list(values)) else 0.0
