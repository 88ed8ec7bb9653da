"""Define errors that a user can correct, and end a command in one line on errors and interruptions."""

from __future__ import annotations

import errno
import getpass
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

from .component_errors import TRACEBACK_VARIABLE, component_failure

# Gets the tracebacks of unexpected errors. A session hands them to its log file alone; without one, they are shown.
tracebacks = logging.getLogger(f"{__name__}.tracebacks")

TOO_MANY_FILES = ("Too many open files", "items of ancdata")  # the second from a worker's message that lost its file
NO_MEMORY = ("allocate memory", "bad_alloc", "out of memory", "not enough memory")  # in RuntimeErrors of torch and ITK


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
    """Return the first ``InputError`` of a chain of exceptions, which MONAI makes, or else the origin.

    An exception from building a component of a config becomes an ``InputError`` that names the component, or a
    ``UsageError`` where an option sets the component.
    """
    links = list(_chain(error))
    for link in links:
        if is_input_error(link):
            return link
    origin = links[-1]
    _, found, text = str(origin).rpartition("InputError: ")  # MONAI's SaveImage keeps its writer's as text
    if found:
        return InputError(text.strip())
    if is_out_of_memory(origin) or isinstance(origin, (OSError, KeyboardInterrupt)):
        return origin
    if (failure := component_failure(links)) is not None:
        return (UsageError if failure.by_option else InputError)(failure.message)
    return origin


def failure_of_case(error: Exception, where: str) -> str:
    """Return the one line that a case gets for what it raised: the file, what was found, what helps.

    An error that nobody foresaw is called internal, and its traceback goes to the log.

    Args:
        error: what reading, preparing, the network or writing raised, with the exceptions that it was raised from.
        where: the case's file or name, for an error that names none.
    """
    cause = root_cause(error)
    if is_input_error(cause):
        return str(cause)
    text = first_line(cause)
    if is_out_of_memory(cause):
        return f"{where}: not enough memory ({text}); use a machine with more memory, or a smaller scan"
    if isinstance(cause, OSError) and cause.strerror:
        return os_failure(cause, where)
    tracebacks.error("%s: internal error", where, exc_info=error)
    return f"{where}: internal error ({type(cause).__name__}: {text}); report it with the traceback in the log"


def os_failure(error: OSError, where: str) -> str:
    """Return the line for a file that the system does not let open, read or write."""
    name = error.filename if error.filename is not None else where
    if isinstance(error, PermissionError):
        return f"{name}: permission denied; let this user read the file and enter its folder"
    return f"{name}: {error.strerror}; check the file, its disk and its network drive"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on any device."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in [kind.__name__ for kind in type(error).__mro__]:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        sys.__excepthook__(kind, error, trace)
    cause = root_cause(error)
    if is_input_error(cause):
        from tqdm import tqdm  # here, since most errors come before any progress

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()  # the error gets a line of its own
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(getattr(cause, "status", 1))
    if is_out_of_memory(cause):
        print(f"error: not enough memory ({first_line(cause)}); use a machine with more", file=sys.stderr)
        raise SystemExit(1)
    if isinstance(cause, PermissionError) and cause.filename is not None:
        print(f"error: {os_failure(cause, cause.filename)}", file=sys.stderr)
        raise SystemExit(1)
    limit = _limit_of_the_system(error)
    if limit is not None:
        print(f"error: {limit}", file=sys.stderr)
        raise SystemExit(1)
    sys.__excepthook__(kind, error, trace)


def show_input_errors_in_one_line() -> None:
    """Print an ``InputError``, a lack of memory or of permission that ends the process as one line.

    Every other exception keeps its traceback.

    MONAI wraps what happens in a config in several layers of ``RuntimeError``, below which the message would be lost.
    """
    sys.excepthook = _show


class Terminated(KeyboardInterrupt):
    """Report SIGTERM, which ends a run as Ctrl-C does."""


def set_user_name() -> None:
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
        if getattr(link, "errno", None) in (errno.EMFILE, errno.ENFILE) or any(sign in text for sign in TOO_MANY_FILES):
            return "too many open files; raise the limit (ulimit -n 4096) or lower --num_workers"
        if "DataLoader worker" in text and any(sign in text for sign in ("Bus error", "shared memory", "/torch_")):
            return "/dev/shm is too small for the workers; enlarge it (docker run --shm-size 8g) or lower --num_workers"
    return None
