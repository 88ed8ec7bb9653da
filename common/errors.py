"""Errors that are the user's to mend, and how a command shows them."""

from __future__ import annotations

import sys
from types import TracebackType


class InputError(ValueError):
    """A file, a value or an option that cannot be used; the message names it, what was found, and the fix."""


def is_input_error(error: BaseException) -> bool:
    """Whether it is an ``InputError``, of this module or of the copy of it that a package carries."""
    return InputError.__name__ in [kind.__name__ for kind in type(error).__mro__]


def root_cause(error: BaseException) -> BaseException:
    """The first ``InputError`` in a chain of exceptions, as MONAI's transforms and configs make, or else its origin."""
    while not is_input_error(error):
        origin = error.__cause__ or error.__context__
        if origin is None:
            break
        error = origin
    return error


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = root_cause(error)
    if is_input_error(cause):
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
