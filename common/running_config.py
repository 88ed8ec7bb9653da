"""Find the config that evaluates an expression, and the files and options of its run."""

from __future__ import annotations

from collections.abc import Mapping
from traceback import walk_stack
from typing import Any, NamedTuple

from monai.bundle import ConfigParser, create_workflow

from .errors import InputError


class Given(NamedTuple):
    """Hold the arguments of a call of MONAI's ``create_workflow``.

    Args:
        files: path of a config file, or a list of paths.
        overrides: option name -> value.
    """

    files: Any
    overrides: Mapping[str, Any]


def running_config() -> tuple[ConfigParser, Given | None]:
    """Return the config that evaluates the caller, and the arguments of the ``monai.bundle`` call.

    MONAI does not pass the config to its expressions, so this function searches the call stack. The arguments are None
    after ``initialize``, and for a workflow that a program builds without MONAI's ``create_workflow``.

    Raises:
        InputError: if no expression of a config called.
    """
    parser = None
    for frame, _ in walk_stack(None):
        if parser is None and isinstance(frame.f_locals.get("self"), ConfigParser):
            parser = frame.f_locals["self"]
        if frame.f_code is create_workflow.__code__:
            assert parser is not None
            return parser, Given(frame.f_locals["config_file"], frame.f_locals.get("_args", {}))
    if parser is None:
        raise InputError("called outside a config; call this function from an expression of a config")
    return parser, None
