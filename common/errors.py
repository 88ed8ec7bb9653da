"""Errors that a user can correct, interruptions, and the one line in which a command shows them."""

from __future__ import annotations

import errno
import getpass
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType


class InputError(ValueError):
    """Report a file, a value or an option that cannot be used.

    The message names it, what was found, what was expected, and what to do. ``status`` is the exit status of a command
    that ends with it.
    """

    status = 1


class UsageError(InputError):
    """Report a wrong call: an unknown option, or a value of another type or out of its range."""

    status = 2


class CasesFailedError(InputError):
    """Report that cases of a batch failed; the message lists them.

    Args:
        message: what is shown.
        all_failed: no case of the batch succeeded; the exit status is then 3, and otherwise 1.
    """

    def __init__(self, message: str, all_failed: bool) -> None:
        super().__init__(message)
        self.status = 3 if all_failed else 1


def is_input_error(error: BaseException) -> bool:
    """Return whether it is an ``InputError``, of this module or of the copy of it that a package carries."""
    return InputError.__name__ in [kind.__name__ for kind in type(error).__mro__]


def root_cause(error: BaseException) -> BaseException:
    """Return the first ``InputError`` of a chain of exceptions, which MONAI makes, or else the origin."""
    while not is_input_error(error):
        origin = error.__cause__ or error.__context__
        if origin is None:
            break
        error = origin
    return error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _let_signals_kill()
    interruption = next((link for link in _chain(error) if isinstance(link, KeyboardInterrupt)), None)
    if interruption is not None:  # below what pydoc and MONAI make of one that reaches an import
        raise SystemExit(_say_interruption(interruption))
    cause = root_cause(error)
    if is_input_error(cause):
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(getattr(cause, "status", 1))
    limit = _limit_of_the_system(error)
    if limit is not None:
        print(f"error: {limit}", file=sys.stderr)
        raise SystemExit(1)
    sys.__excepthook__(kind, error, trace)


def show_input_errors_in_one_line() -> None:
    """Print an ``InputError`` that ends the process as one line; every other exception keeps its traceback.

    MONAI wraps what happens in a config in several layers of ``RuntimeError``, below which the message would be lost.
    """
    sys.excepthook = _show


class Terminated(KeyboardInterrupt):
    """Report SIGTERM, which ends a run as Ctrl-C does."""


def name_the_user() -> None:
    """Give a user without a name, as in a container, one for MONAI, which asks for it when it is imported."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def end_in_one_line() -> None:
    """Make this process, a command, end in one line: also where Ctrl-C or SIGTERM reaches it."""
    show_input_errors_in_one_line()
    sys.unraisablehook = _end_at_interruption
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _let_signals_kill() -> None:
    """Let a second Ctrl-C or SIGTERM of a command that already ends kill it without a word."""
    if signal.getsignal(signal.SIGTERM) is _terminate and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _say_interruption(error: BaseException) -> int:
    """Print the line of an interruption; return the exit status, as shells have it."""
    terminated = isinstance(error, Terminated)
    print("terminated" if terminated else "interrupted", file=sys.stderr, flush=True)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _end_at_interruption(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python would ignore an interruption: in a finalizer, or while the process ends."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        status = _say_interruption(unraisable.exc_value)
        sys.stdout.flush()
        os._exit(status)
    sys.__unraisablehook__(unraisable)


def _limit_of_the_system(error: BaseException) -> str | None:
    """Return the line for a limit of the machine on shared memory or open files, if an error came from it."""
    for link in _chain(error):
        text = str(link)
        if getattr(link, "errno", None) in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
            return "too many open files; raise the limit (ulimit -n 4096) or lower --num_workers"
        if "DataLoader worker" in text and any(sign in text for sign in ("Bus error", "shared memory", "/torch_")):
            return "/dev/shm is too small for the workers; enlarge it (docker run --shm-size 8g) or lower --num_workers"
    return None
