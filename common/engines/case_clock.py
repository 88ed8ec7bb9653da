"""Measure the time and memory of cases, and end the work on a case that takes too long."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


class CaseClock:
    """Add up the seconds that threads work on each case, and end the work on a case that reaches a limit.

    A thread is interrupted between two steps of Python. So a single call of a library, such as a read from a drive that
    does not answer, ends first.

    Args:
        limit: largest time of a case in s, or None.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.seconds: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def so_far(self, name: str) -> float:
        """Return the time of a case in s, with the block that is running."""
        running = time.monotonic() - self._begun[name] if name in self._begun else 0.0
        return self.seconds.get(name, 0.0) + running

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """Count the time of the block for a case.

        Raises:
            InputError: the case reaches the limit.
        """
        begun = self._begun[name] = time.monotonic()
        spent = self.seconds.get(name, 0.0)
        try:
            if self.limit is None:
                yield
            else:
                with _interruption(self.limit - spent):
                    yield
        except _OutOfTimeError:
            raise InputError(
                f"{name}: not done after {self.limit:g} s; raise --case_timeout, or use a faster machine"
            ) from None
        finally:
            del self._begun[name]
            self.seconds[name] = spent + time.monotonic() - begun


class _OutOfTimeError(BaseException):
    """End the work on a case; no library may take it for a failure of its own."""


@contextmanager
def _interruption(seconds: float) -> Iterator[None]:
    """Raise ``_OutOfTimeError`` in this thread if the block takes longer."""
    thread, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def send(error: type[BaseException] | None) -> None:
        target = None if error is None else ctypes.py_object(error)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)

    def interrupt() -> None:
        with lock:
            if not over.is_set():
                send(_OutOfTimeError)

    timer = threading.Timer(max(seconds, 0), interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over.set()
            send(None)  # one that is on its way would interrupt the next work of this thread
        timer.cancel()


def peak_mb() -> float:
    """Return the largest memory of this process in MB since the last call, or since its start.

    Only Linux can begin anew. On macOS it is always the largest since the start, and on Windows it is ``nan``.
    """
    try:
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, IndexError, ValueError):
        try:
            import resource  # here, because Windows has no such module
        except ImportError:
            return math.nan
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return round(peak / 1e6, 1)
