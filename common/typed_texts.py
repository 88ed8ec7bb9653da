"""Restore the texts of options that Fire and MONAI change."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .rules import PATHS, RULES, TRACKING, check_value

TEXTS = {*PATHS, *TRACKING, "cases", "series"}  # Fire would turn the case name 007 into a number


def is_bundle_command() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[1:2] == ["run"] and Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def typed_texts(overrides: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the paths and names of cases among the options as the user typed them, except null and expressions."""
    if is_bundle_command():
        overrides = {**overrides, **command_line_texts(sys.argv[2:])}
    texts: dict[str, str | list[str]] = {}
    for name, value in overrides.items():
        if name in TEXTS and isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            is_null = text in ("None", "null") and RULES[name].holds(None)
            if not is_null and not text.startswith(("$", "@", "%")):
                check_value(name, text)
                files = _list_of_texts(text) if name == "weights" and not Path(text).exists() else None
                texts[name] = text if files is None else [literal(file) for file in files]
    return texts


def _list_of_texts(text: str) -> list[str] | None:
    """Return the items of a text such as ``['a','b']``, or None for another text."""
    if not re.fullmatch(r"\s*\[.*\]\s*", text):
        return None
    items = [item.strip().strip("'\"") for item in text.strip()[1:-1].split(",")]
    return items if all(items) and len(items) > 0 else None


def command_line_texts(arguments: Sequence[str]) -> dict[str, str]:
    """Return option name -> text as typed on a command line. If an option is repeated, the last one counts.

    Args:
        arguments: arguments of the command, in Fire's forms ``--name value`` and ``--name=value``.
    """
    texts: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            if equals or not re.match(r"--|-[a-zA-Z](=|$)", following):
                texts[name.replace("-", "_")] = value if equals else following
    return texts


def literal(text: str) -> str:
    """Return a MONAI expression that evaluates to a text. It escapes every character with a meaning in MONAI."""
    escaped = "".join(c if (c.isalnum() and c.isascii()) or c in "/._-" else f"\\U{ord(c):08x}" for c in text)
    return f"$'{escaped}'"
