"""Errors that a user can correct, and how a command shows them."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

# Gets the tracebacks of unexpected errors. A session hands them to its log file alone; without one, they are shown.
tracebacks = logging.getLogger(f"{__name__}.tracebacks")

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
    """Whether it is an ``InputError``, of this module or of the copy of it that a package carries."""
    return InputError.__name__ in [kind.__name__ for kind in type(error).__mro__]


def root_cause(error: BaseException) -> BaseException:
    """The first ``InputError`` in a chain of exceptions, as MONAI's transforms and configs make, or else its origin."""
    while not is_input_error(error):
        origin = error.__cause__ or error.__context__
        if origin is None:
            _, found, text = str(error).rpartition("InputError: ")  # MONAI's SaveImage keeps its writer's as text
            return InputError(text.strip()) if found else error
        error = origin
    return error


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


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
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
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, trace)


def show_input_errors_in_one_line() -> None:
    """Print an ``InputError``, a lack of memory or of permission that ends the process as one line.

    Every other exception keeps its traceback.

    MONAI wraps what happens in a config in several layers of ``RuntimeError``, below which the message would be lost.
    """
    sys.excepthook = _show
