"""Define errors that a user can correct. End a command with one line on an error or an interruption."""

from __future__ import annotations

import contextlib
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

# Receives the tracebacks of unexpected errors. A run writes them only to its log file; without a run, they are shown.
tracebacks = logging.getLogger(f"{__name__}.tracebacks")

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows lacks SIGHUP
TOO_MANY_FILES = ("Too many open files", "items of ancdata")  # the second comes from a DataLoader worker
WORKER_ENDED = ("killed by signal", "exited unexpectedly")
NO_MEMORY = ("allocate memory", "bad_alloc", "out of memory", "not enough memory")  # in RuntimeErrors of torch and ITK


class InputError(ValueError):
    """Report a file, value or option that cannot be used.

    The message names the file, value or option. It says what was found, what was expected and what to do. A command
    that ends with this error exits with ``status``.
    """

    status = 1


class UsageError(InputError):
    """Report a wrong call: an unknown option, or a value with a wrong type or outside its range."""

    status = 2


class CasesFailedError(InputError):
    """Report that cases of a batch failed; the message lists them.

    Args:
        message: the text to show.
        all_failed: whether every case failed. The exit status is 3 if so, otherwise 1.
    """

    def __init__(self, message: str, all_failed: bool) -> None:
        super().__init__(message)
        self.status = 3 if all_failed else 1


def is_input_error(error: BaseException) -> bool:
    """Return whether an exception is an ``InputError`` of this module or of its copy in a packed bundle."""
    return InputError.__name__ in [kind.__name__ for kind in type(error).__mro__]


def root_cause(error: BaseException) -> BaseException:
    """Return the first ``InputError`` in a chain of exceptions, or the origin of the chain if it has none.

    MONAI wraps an error in several others. If MONAI failed to build a component of a config, this function returns an
    ``InputError`` that names the component. It returns a ``UsageError`` if an option sets the component.
    """
    links = list(_chain(error))
    for link in links:
        if is_input_error(link):
            return link
    origin = links[-1]
    _, found, text = str(origin).rpartition("InputError: ")  # MONAI's SaveImage keeps only the text
    if found:
        return InputError(text.strip())
    if is_out_of_memory(origin) or isinstance(origin, (OSError, KeyboardInterrupt)):
        return origin
    if (failure := component_failure(links)) is not None:
        return (UsageError if failure.by_option else InputError)(failure.message)
    return origin


def failure_of_case(error: Exception, where: str) -> str:
    """Return a one-line message for a case that failed: the file, what was found and what to do.

    The message calls an unexpected error internal. The log gets its traceback.

    Args:
        error: exception from reading, preprocessing, the network or writing, with its chain of causes.
        where: file or name of the case, for an error that names no file.
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
    """Return a one-line message for a file that the operating system refuses to open, read or write.

    Args:
        error: the system's error.
        where: file or name of the case, for an error that names no file.
    """
    name = error.filename if error.filename is not None else where
    if isinstance(error, PermissionError):
        return f"{name}: permission denied; let this user read the file and enter its folder"
    return f"{name}: {error.strerror}; check the file, its disk and its network drive"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a failed allocation, on any device."""
    if isinstance(error, MemoryError) or "OutOfMemoryError" in [kind.__name__ for kind in type(error).__mro__]:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or the name of its type if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, then its cause or context, back to the origin."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _let_signals_kill()
    interruption = next((link for link in _chain(error) if isinstance(link, KeyboardInterrupt)), None)
    if interruption is not None:  # pydoc and MONAI wrap an interruption that reaches an import
        raise SystemExit(_say_interruption(interruption))
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        sys.__excepthook__(kind, error, trace)
    cause = root_cause(error)
    if is_input_error(cause):
        from tqdm import tqdm  # imported late, since most errors come before any progress bar

        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()  # so that the error starts on a new line
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(getattr(cause, "status", 1))
    if is_out_of_memory(cause):
        print(f"error: not enough memory ({first_line(cause)}); use a machine with more memory", file=sys.stderr)
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
    """Print one line if an ``InputError``, a lack of memory or a lack of permission ends the process.

    Every other exception keeps its traceback. MONAI wraps an error from a config in several layers of
    ``RuntimeError``, which would hide the message.
    """
    sys.excepthook = _show


class Terminated(KeyboardInterrupt):
    """Report SIGTERM or SIGHUP, which end a run in the same way as Ctrl-C.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = number


def set_user_name() -> None:
    """Set the environment variable USER to the user's number if the system has no name for the user.

    Containers often run without a user name. MONAI asks for the name on import.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def end_in_one_line() -> None:
    """Make this process, a command, end with one line on an error, Ctrl-C, SIGTERM or SIGHUP.

    A closed terminal sends SIGHUP. A command under ``nohup`` goes on.
    """
    show_input_errors_in_one_line()
    sys.unraisablehook = _end_at_interruption
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if number == signal.SIGTERM or signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _terminate)


def let_signals_end_at_once() -> None:
    """Let SIGTERM and SIGHUP end this process without a message, as before :func:`end_in_one_line`."""
    for number in ENDING:
        if signal.getsignal(number) is _terminate:
            signal.signal(number, signal.SIG_DFL)


def _let_signals_kill() -> None:
    """Let a second Ctrl-C, SIGTERM or SIGHUP kill a command that is already ending, without a message."""
    if signal.getsignal(signal.SIGTERM) is _terminate and threading.current_thread() is threading.main_thread():
        let_signals_end_at_once()
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _say_interruption(error: BaseException) -> int:
    """Print that the process was interrupted or terminated, and return the shell's exit status for the signal."""
    word, number = ("terminated", error.number) if isinstance(error, Terminated) else ("interrupted", signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal may be closed
        print(word, file=sys.stderr, flush=True)
    return 128 + number


def _end_at_interruption(unraisable: sys.UnraisableHookArgs) -> None:
    """End the process where Python ignores an interruption: in a finalizer, or while the process ends."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        status = _say_interruption(unraisable.exc_value)
        sys.stdout.flush()
        os._exit(status)
    sys.__unraisablehook__(unraisable)


def _limit_of_the_system(error: BaseException) -> str | None:
    """Return a one-line message if an error came from a limit on shared memory, memory or open files, else None."""
    for link in _chain(error):
        text = str(link)
        if getattr(link, "errno", None) in (errno.EMFILE, errno.ENFILE) or any(sign in text for sign in TOO_MANY_FILES):
            return "too many open files; raise the limit (ulimit -n 4096) or lower --num_workers"
        if "DataLoader worker" in text and any(sign in text for sign in ("Bus error", "shared memory", "/torch_")):
            return "/dev/shm is too small for the workers; enlarge it (docker run --shm-size 8g) or lower --num_workers"
    texts = [str(link) for link in _chain(error)]
    if any("DataLoader worker" in text and any(sign in text for sign in WORKER_ENDED) for text in texts):
        return (
            "a worker that reads the cases was killed, most often for lack of memory; lower --num_workers, or use a "
            "machine with more memory"
        )
    return None
