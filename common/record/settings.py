"""Resolve the settings of a config to plain values, and compare them."""

from __future__ import annotations

import json
from typing import Any

from monai.bundle import ConfigParser

ABSENT = object()  # marks the value of a missing key


def resolved_setting(parser: ConfigParser, key: str) -> Any:
    """Return the value of a setting as JSON has it; a value that JSON cannot hold stays as the config has it."""
    raw = parser[key]
    if _is_constant(raw):
        return json.loads(json.dumps(raw))  # JSON turns keys into texts; those of the command line may be numbers
    if isinstance(raw, dict):
        return {name: resolved_setting(parser, f"{key}::{name}") for name in raw if name != "_requires_"}
    if isinstance(raw, list):
        return [resolved_setting(parser, f"{key}::{place}") for place in range(len(raw))]
    if isinstance(raw, str) and raw.startswith(("$", "@")):
        value = parser.get_parsed_content(key)
        try:
            return json.loads(json.dumps(value))
        except (TypeError, ValueError):
            return raw
    return raw if is_plain(raw) else f"{type(raw).__module__}.{type(raw).__qualname__}"


def _is_constant(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_constant, value.values())) and "_requires_" not in value
    if isinstance(value, (list, tuple)):
        return all(map(_is_constant, value))
    return is_plain(value) and not (isinstance(value, str) and value.startswith(("$", "@")))


def is_plain(value: Any) -> bool:
    """Return whether a value comes from a file or the command line, not from a program that set an object."""
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def same_setting(one: Any, other: Any) -> bool:
    """Return whether two settings are equal; components match by class name, since a package renames the modules."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = (one.keys() | other.keys()) - {"_mode_", "_requires_"}
        if "_target_" not in keys and list(one) != list(
            other
        ):  # the order of labels is the order of the network's classes
            return False
        return all(same_setting(one.get(key, ABSENT), other.get(key, ABSENT)) for key in keys)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same_setting, one, other))
    if isinstance(one, str) and isinstance(other, str):
        return one.rpartition(".")[2] == other.rpartition(".")[2] if "." in one and "." in other else one == other
    return bool(one == other)


def difference(key: str, given: Any, recorded: Any) -> str:
    """Return text on the difference of two settings at the innermost key, with both values."""
    if isinstance(given, dict) and isinstance(recorded, dict):
        for name in sorted((given.keys() | recorded.keys()) - {"_mode_", "_requires_"}):
            one, other = given.get(name, ABSENT), recorded.get(name, ABSENT)
            if not same_setting(one, other):
                return difference(f"{key}::{name}", one, other)
    return f"{key}: {_shown(given)} here, {_shown(recorded)} in the record"


def _shown(value: Any) -> str:
    return "not set" if value is ABSENT else json.dumps(value)
