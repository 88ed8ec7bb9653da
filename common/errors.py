"""Errors that are the user's to mend, and how a command shows them."""

from __future__ import annotations

import sys
from types import TracebackType


class InputError(ValueError):
    """A file, a value or an option that cannot be used. The message names it, what was found, what was expected and the fix."""


def input_error_in(error: BaseException) -> InputError | None:
    """The ``InputError`` at the root of a chain of exceptions, such as MONAI's transforms and configs make, or None."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, InputError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = input_error_in(error)
    if cause is not None:
        print(f"error: {cause}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def show_input_errors_in_one_line() -> None:
    """Print an ``InputError`` that ends the process as one line; every other exception keeps its traceback.

    MONAI wraps what happens in a config in several layers of ``RuntimeError``, below which the message would be lost.
    """
    sys.excepthook = _show
