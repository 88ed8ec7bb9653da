"""Check the overlays of a run against the configs of its bundle."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver

from .errors import InputError, UsageError
from .rules import RULES, fix_of_unknown, setting_of
from .running_config import Given

FIXED = {
    "record": "a training makes its own record; leave the option out",
    "recorded": "the bundle defines the content of its record; add settings by +recorded in an overlay",
}
NEEDED = ("network_def", "stages", "loss", "optimizer", "inferer", "preprocessing", "train", "validate")  # never null
COMPUTED = ("record", "network", "intensity")  # the configs compute these settings by an expression
NOT_CONFIGS = ("metadata.json", "plan.json")  # files of the folder configs that have no settings of a run

logger = logging.getLogger(__name__)


def used_settings(config: Mapping[str, Any]) -> set[str]:
    """Return the settings that others in a config refer to, without those that make a package's code importable."""
    return {name for key, value in config.items() for name in _settings_in(value) if name != key}


def _settings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from map(setting_of, ReferenceResolver.match_refs_pattern(value))
    elif isinstance(value, (dict, list)):
        items = [item for key, item in value.items() if key != "_requires_"] if isinstance(value, dict) else value
        for item in items:
            yield from _settings_in(item)


def known_settings(configs: Path) -> set[str]:
    """Return the settings of the configs in a bundle's folder, and ``reasons``, in which a plan explains its settings.

    Args:
        configs: folder ``configs`` of a bundle.
    """
    files = [file for file in configs.rglob("*.json") if file.name not in NOT_CONFIGS]
    return {setting_of(key) for file in files for key in ConfigParser.load_config_file(str(file))} | {"reasons"}


def check_overlays(given: Given) -> None:
    """Check that every setting of an overlay is one of the bundle, or that another setting refers to it.

    Log a warning on a setting that changes nothing. A key that begins with ``_`` is a note.

    Raises:
        InputError: if such a setting has nearly the name of another, or was renamed.
    """
    files = _paths(given.files)
    folder = Path(files[0]).resolve().parent
    overlays = [file for file in files if not Path(file).resolve().is_relative_to(folder)]
    if not overlays:
        return
    known = known_settings(folder) if folder.name == "configs" else set()
    known |= {setting_of(key) for file in files if file not in overlays for key in ConfigParser.load_config_file(file)}
    merged = ConfigParser.load_config_files(files)
    used, text = used_settings(merged), str(merged)
    for file in overlays:
        for key in map(setting_of, ConfigParser.load_config_file(file)):
            if key in known or key in used or key.startswith("_") or f"%{key}" in text:
                continue
            if fix := fix_of_unknown(key, known):
                raise InputError(f"{file}: unknown setting {key!r}; {fix}")
            logger.warning(
                "%s: the bundle does not have the setting %r, and no other refers to it; it changes nothing", file, key
            )


def check_kinds(given: Given) -> None:
    """Check that no overlay or option replaces a component, an object or a list by another kind of value.

    Raises:
        InputError: if a config file does so.
        UsageError: if an option does so, or sets a part of the training record.
    """
    for name, fix in FIXED.items():
        if name in given.overrides:
            raise UsageError(f"--{name} {given.overrides[name]}: {fix}")
    files = _paths(given.files)
    before = ConfigParser(ConfigParser.load_config_file(files[0]))
    for number, file in enumerate(files[1:], start=1):
        for key, value in ConfigParser.load_config_file(file).items():
            if (expected := _other_kind(before, key, value)) is not None:
                raise InputError(f"{file}: {key} is {value!r}, expected {expected}")
        before = ConfigParser(ConfigParser.load_config_files(files[: number + 1]))
    for key, value in given.overrides.items():
        if (expected := _other_kind(before, key, value)) is not None:
            raise UsageError(f"--{key} {value}: expected {expected}")


def _paths(files: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return [os.fspath(files)] if isinstance(files, (str, os.PathLike)) else list(files)


def _has_components(value: Any) -> bool:
    """Return whether a value is a component, or a list with a component as its first item."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "_target_" in first


def _other_kind(before: ConfigParser, key: str, value: Any) -> str | None:
    """Return the expected kind if a value differs in kind from the config's value of a key, else None."""
    key = key.replace("#", "::")
    value = None if value == "null" else value  # the command line gives null as text
    if key.startswith("+") or key in RULES or key not in before:
        return None
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        return None
    current = before[key]
    components = value if isinstance(value, (list, tuple)) else [value]
    if _has_components(current) and components and all(map(_has_components, components)):
        return None  # a component may return a list of components, so each may replace the other
    if key.endswith("::data") and isinstance(value, list) and all(isinstance(case, dict) for case in value):
        return None  # the cases themselves, in place of the component that lists them, as MONAI Label gives them
    if key.endswith("::max_epochs") and isinstance(value, int):
        return None
    if isinstance(current, dict) and not isinstance(value, dict) and (value is not None or key in NEEDED):
        return 'a component, {"_target_": ...}' if "_target_" in current else "an object, {...}"
    if isinstance(current, list) and not isinstance(value, (list, tuple)):
        return "a list, [...]"
    of_components = isinstance(current, list) and current and all(isinstance(item, dict) for item in current)
    if of_components and not all(isinstance(item, (dict, str)) for item in value):
        return 'a list of components, [{"_target_": ...}, ...]'
    if key in COMPUTED and not isinstance(value, dict):
        return "an object, {...}, or an expression that begins with $"
    return None
