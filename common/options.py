"""Check the options and config files of a run, and restore texts that MONAI's command line changes."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from traceback import walk_stack
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.bundle.reference_resolver import ReferenceResolver

from .errors import InputError, UsageError
from .rules import DEVICE, PATHS, RULES, SWITCH, check_value

FIXED = {
    "record": "a training makes its own record; leave the option out",
    "recorded": "the bundle decides what its record holds; an overlay may add to it by +recorded",
}
NEEDED = ("network_def", "stages", "loss", "optimizer", "inferer", "preprocessing", "train", "validate")  # not null
COMPUTED = ("record", "network", "intensity")  # by an expression

TEXTS = {*PATHS, "cases"}  # Fire would make a number of a case 007

# Settings of earlier versions, and what replaced them.
RENAMED = {"target": "labels and label_map, such as --labels \"{'liver': 1, 'tumour': 2}\" --label_map \"{}\""}


def check_setting(key: str, known: Collection[str], where: str, mark: str = "") -> None:
    """Refuse a key that is about no known setting, as one that is misspelt.

    Args:
        key: name in a config or of an option.
        known: the settings.
        where: what has these settings, for the message.
        mark: the dashes before an option.

    Raises:
        InputError: the setting is unknown; the message names the nearest. For an option it is a ``UsageError``.
    """
    if setting_of(key) not in known:
        near = difflib.get_close_matches(setting_of(key), known, n=1)
        hint = f"; did you mean {mark}{near[0]}?" if near else ""
        if setting_of(key) in RENAMED:
            hint = f"; use {RENAMED[setting_of(key)]}"
        kind, error = ("option", UsageError) if mark else ("setting", InputError)
        raise error(f"unknown {kind} {mark}{key} of {where}{hint}")


def setting_of(key: str) -> str:
    """Return the setting that a key of a config, an overlay or an option is about: that of ``+load``, ``load::0``."""
    return re.split("::|#", key.lstrip("+"))[0]


def parse_bool(value: bool | str) -> bool:
    """Return a switch of a config, which the command line gives as the word ``true`` or ``false``.

    Raises:
        UsageError: another word.
    """
    if not SWITCH.holds(value):
        raise UsageError(f"{value!r}: expected {SWITCH.expected}")
    return value if isinstance(value, bool) else value.lower() == "true"


def mixed_precision(amp: bool | str, device: torch.device | str) -> bool:
    """Return whether to use MONAI's automatic mixed precision, which it has for CUDA alone.

    Raises:
        UsageError: ``amp`` on another device, where it would do nothing.
    """
    if parse_bool(amp) and torch.device(device).type != "cuda":
        raise UsageError(f"--amp true, but the device is {device}; mixed precision needs CUDA")
    return parse_bool(amp)


def is_bundle_command() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[1:2] == ["run"] and Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def check_settings() -> None:
    """Check the settings of the run that the calling config begins, from its ``initialize``.

    Unknown options, values of another kind and values out of their ranges are refused. Paths and names of cases become
    the texts that the user gave: on the command line Fire makes numbers, lists and null of some, and MONAI writes
    ``::`` for ``#``.

    Raises:
        InputError: a config file gives a component another kind of value, or a path that MONAI has changed.
        UsageError: an unknown option; a value of another type or out of its range.
    """
    parser, given = running_config()
    if given is not None:
        refuse_unknown_options(given.overrides, given.files)
        _check_kinds(given)
        _check_support(parser, given)
    nulls = [name for name, rule in RULES.items() if name in parser and parser[name] == "null" and rule.holds(None)]
    if given is not None:
        nulls += [name for name, value in given.overrides.items() if value == "null" and name not in RULES]
    for name in nulls:  # Fire knows None alone
        parser[name] = None
    texts = _path_texts({} if given is None else given.overrides)
    changed = {name: text for name, text in texts.items() if parser[name] != text}
    for name, text in changed.items():
        parser[name] = text if isinstance(text, list) else literal(text)
    if changed or nulls:
        parser.parse(reset=True)
    for name in RULES:
        if name in parser and name not in texts:
            _check_setting_value(parser, name)


class Given(NamedTuple):
    """Hold what a caller of MONAI's ``create_workflow`` gave: config files, and options by their names."""

    files: Any
    overrides: Mapping[str, Any]


def _check_support(parser: ConfigParser, given: Given) -> None:
    """Check that no option asks for a result that the config does not write.

    The key ``unsupported`` of a config has the names of such switches and the reason.

    Raises:
        UsageError: such a switch is on.
    """
    unsupported: Mapping[str, str] = parser.get("unsupported", {})
    for name, reason in unsupported.items():
        if parse_bool(given.overrides.get(name, False)):
            raise UsageError(f"--{name} true: {reason}; leave it out")


def _check_kinds(given: Given) -> None:
    """Check that no overlay and no option replaces a component, an object or a list by a value of another kind.

    Raises:
        InputError: a config file does so.
        UsageError: an option does so, or sets what a training records.
    """
    for name, fix in FIXED.items():
        if name in given.overrides:
            raise UsageError(f"--{name} {given.overrides[name]}: {fix}")
    files = [given.files] if isinstance(given.files, (str, os.PathLike)) else list(given.files)
    before = ConfigParser(ConfigParser.load_config_file(files[0]))
    for number, file in enumerate(files[1:], start=1):
        for key, value in ConfigParser.load_config_file(file).items():
            if (expected := _other_kind(before, key, value)) is not None:
                raise InputError(f"{file}: {key} is {value!r}, expected {expected}")
        before = ConfigParser(ConfigParser.load_config_files(files[: number + 1]))
    for key, value in given.overrides.items():
        if (expected := _other_kind(before, key, value)) is not None:
            raise UsageError(f"--{key} {value}: expected {expected}")


def _has_components(value: Any) -> bool:
    """Return whether a value is a component, or a list that begins with one."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "_target_" in first


def _other_kind(before: ConfigParser, key: str, value: Any) -> str | None:
    """Return what a key has to be if a value is of another kind than what a config has there, or else None."""
    key = key.replace("#", "::")
    value = None if value == "null" else value  # as the command line writes it
    if key.startswith("+") or key in RULES or key not in before:
        return None
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        return None
    current = before[key]
    components = value if isinstance(value, (list, tuple)) else [value]
    if _has_components(current) and components and all(map(_has_components, components)):
        return None  # a function may make a list of components, so that one stands for the other
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


def running_config() -> tuple[ConfigParser, Given | None]:
    """Return the config that evaluates the caller, and what a ``monai.bundle`` call gave for it.

    MONAI gives an expression no handle on the config that it belongs to. The second is None after ``initialize``, and
    for a workflow that a program makes without MONAI's ``create_workflow``.
    """
    parser = None
    for frame, _ in walk_stack(None):
        if parser is None and isinstance(frame.f_locals.get("self"), ConfigParser):
            parser = frame.f_locals["self"]
        if frame.f_code is create_workflow.__code__:
            assert parser is not None
            return parser, Given(frame.f_locals["config_file"], frame.f_locals.get("_args", {}))
    if parser is None:
        raise InputError("expected a call from an expression of a config")
    return parser, None


def refuse_unknown_options(names: Collection[str], config_files: str | Sequence[str]) -> None:
    """Check the names of overrides, of which MONAI takes any, also those that nothing reads.

    Args:
        names: of the overrides.
        config_files: as for ``monai.bundle.run``.

    Raises:
        UsageError: a name that is neither MONAI's nor a key of the config files.
    """
    known = {"_meta_", "workflow_name"}
    known |= {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    known |= {setting_of(key) for key in ConfigParser.load_config_files(config_files)}
    where = config_files if isinstance(config_files, str) else ", ".join(map(str, config_files))
    for name in names:
        check_setting(name, known, where, "--")


def _path_texts(overrides: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Return the paths and names of cases among overrides as the user wrote them, but for what is MONAI's language."""
    if is_bundle_command():
        overrides = {**overrides, **command_line_texts(sys.argv[2:])}
    texts: dict[str, str | list[str]] = {}
    for name, value in overrides.items():
        if name in TEXTS and isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            is_null = text in ("None", "null") and PATHS[name].holds(None)
            if not is_null and not text.startswith(("$", "@", "%")):
                check_value(name, text)
                files = _list_of_texts(text) if name == "weights" and not Path(text).exists() else None
                texts[name] = text if files is None else [literal(file) for file in files]
    return texts


def _list_of_texts(text: str) -> list[str] | None:
    """Return the items of ``['a','b']``, or None for another text."""
    if not re.fullmatch(r"\s*\[.*\]\s*", text):
        return None
    items = [item.strip().strip("'\"") for item in text.strip()[1:-1].split(",")]
    return items if all(items) and len(items) > 0 else None


def command_line_texts(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options of a command line as they were typed, the last of those that come twice.

    Args:
        arguments: of the command, as Fire reads them: ``--name value`` or ``--name=value``.
    """
    texts: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], "--"]):
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            if equals or not re.match(r"--|-[a-zA-Z](=|$)", following):
                texts[name.replace("-", "_")] = value if equals else following
    return texts


def literal(text: str) -> str:
    """Return a MONAI expression of a text, in which no character means anything to MONAI."""
    escaped = "".join(c if (c.isalnum() and c.isascii()) or c in "/._-" else f"\\U{ord(c):08x}" for c in text)
    return f"$'{escaped}'"


def _check_setting_value(parser: ConfigParser, name: str) -> None:
    """Check a setting; one that is computed only where no component must be built for it."""
    value = parser[name]
    if isinstance(value, str) and value.startswith(("$", "@")):
        if RULES[name] is DEVICE:  # it may need the environment of torchrun, which start_session asks for
            return
        references = ReferenceResolver.match_refs_pattern(value)
        if not all(setting_of(reference) in RULES for reference in references):
            return
        value = parser.get_parsed_content(name)
    if name in PATHS and isinstance(value, str) and "::" in value and value == parser[name]:
        raise InputError(f"--{name} {value}: MONAI writes :: for #; give such a path as an option")
    check_value(name, value)
