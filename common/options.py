"""Check the options and config files of a run, and restore option texts that MONAI's command line changes."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import walk_stack
from typing import Any, NamedTuple

from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.bundle.reference_resolver import ReferenceResolver

from .errors import InputError, UsageError
from .rules import DEVICE, PATHS, RULES, TRACKING, check_setting, check_value, parse_bool, setting_of
from .tracking import tracking_defaults, tracking_options

FIXED = {
    "record": "a training makes its own record; leave the option out",
    "recorded": "the bundle defines the content of its record; add settings by +recorded in an overlay",
}
NEEDED = ("network_def", "stages", "loss", "optimizer", "inferer", "preprocessing", "train", "validate")  # never null
COMPUTED = ("record", "network", "intensity")  # the configs compute these settings by an expression

TEXTS = {*PATHS, *TRACKING, "cases", "series"}  # Fire would turn the case name 007 into a number

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


def is_bundle_command() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[1:2] == ["run"] and Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py")


def check_settings() -> None:
    """Check the settings of the run that the calling config starts. Its key ``initialize`` calls this function.

    Refuse unknown options, values of another kind and values outside their ranges. Restore paths and names of cases to
    the texts that the user gave: Fire turns some of them into numbers, lists or null, and MONAI replaces ``#`` by
    ``::``.

    Raises:
        InputError: if a config file replaces a component by another kind of value, or has a path that MONAI changed.
        UsageError: if an option is unknown, or has a value of another type or outside its range.
    """
    parser, given = running_config()
    if given is not None:
        refuse_unknown_options(given.overrides, given.files, tracking_options(given.overrides.get("tracking")))
        _check_overlays(given)
        _check_kinds(given)
        _check_support(parser, given)
    ruled = [name for name in RULES if name in parser.get("")]  # "in parser" is slow: it looks for a similar name
    nulls = [name for name in ruled if parser[name] == "null" and RULES[name].holds(None)]
    if given is not None:
        nulls += [name for name, value in given.overrides.items() if value == "null" and name not in RULES]
    for name in nulls:  # Fire reads null as text
        parser[name] = None
    texts = _path_texts({} if given is None else given.overrides)
    changed = {name: text for name, text in texts.items() if parser[name] != text}
    for name, text in changed.items():
        parser[name] = text if isinstance(text, list) else literal(text)
    if changed or nulls:
        parser.parse(reset=True)
    if defaults := tracking_defaults(parser):
        parser.update({name: literal(text) for name, text in defaults.items()})
        parser.parse(reset=True)
    for name in ruled:
        if name not in texts:
            _check_setting_value(parser, name)


class Given(NamedTuple):
    """Hold the arguments of a call of MONAI's ``create_workflow``.

    Args:
        files: path of a config file, or a list of paths.
        overrides: option name -> value.
    """

    files: Any
    overrides: Mapping[str, Any]


def _check_support(parser: ConfigParser, given: Given) -> None:
    """Check that no option asks for a result that the config does not write.

    The key ``unsupported`` of a config maps the names of such switches to the reasons.

    Raises:
        UsageError: if such a switch is on.
    """
    unsupported: Mapping[str, str] = parser.get("unsupported", {})
    for name, reason in unsupported.items():
        if parse_bool(given.overrides.get(name, False)):
            raise UsageError(f"--{name} true: {reason}; leave it out")


def _check_kinds(given: Given) -> None:
    """Check that no overlay or option replaces a component, an object or a list by another kind of value.

    Raises:
        InputError: if a config file does so.
        UsageError: if an option does so, or sets a part of the training record.
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


def _check_overlays(given: Given) -> None:
    """Check that every setting of an overlay is one of the bundle, or that another setting refers to it.

    Log a warning on a setting that changes nothing. A key that begins with ``_`` is a note.

    Raises:
        InputError: if such a setting has nearly the name of another.
    """
    files = [given.files] if isinstance(given.files, (str, os.PathLike)) else list(given.files)
    folder = Path(files[0]).resolve().parent
    overlays = [file for file in files if not Path(file).resolve().is_relative_to(folder)]
    if not overlays:
        return
    own = {Path(file).resolve() for file in files if file not in overlays}
    own |= {*folder.rglob("*.json")} if folder.name == "configs" else set()
    known = {setting_of(key) for file in own for key in ConfigParser.load_config_file(str(file))} | {"reasons"}
    merged = ConfigParser.load_config_files(files)
    used, text = used_settings(merged), str(merged)
    for file in overlays:
        for key in map(setting_of, ConfigParser.load_config_file(file)):
            if key in known or key in used or key.startswith("_") or f"%{key}" in text:
                continue
            if near := difflib.get_close_matches(key, known, n=1):
                raise InputError(f"{file}: unknown setting {key!r}; did you mean {near[0]!r}?")
            logger.warning(
                "%s: the bundle does not have the setting %r, and no other refers to it; it changes nothing", file, key
            )


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


def refuse_unknown_options(
    names: Collection[str], config_files: str | Sequence[str], added: Collection[str] = ()
) -> None:
    """Refuse options that neither MONAI nor the config files read. MONAI itself accepts any name.

    Args:
        names: names of the options.
        config_files: path or paths of the config files, as for ``monai.bundle.run``.
        added: settings that MONAI adds to the config.

    Raises:
        UsageError: if a name is neither an argument of MONAI nor a key of the config files.
    """
    known = {"_meta_", "workflow_name", *added}
    known |= {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    known |= {setting_of(key) for key in ConfigParser.load_config_files(config_files)}
    where = config_files if isinstance(config_files, str) else ", ".join(map(str, config_files))
    for name in names:
        if name in TRACKING and name not in known:
            raise UsageError(f"--{name} needs experiment tracking; add --tracking mlflow")
        check_setting(name, known, where, "--")


def _path_texts(overrides: Mapping[str, Any]) -> dict[str, str | list[str]]:
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


def _check_setting_value(parser: ConfigParser, name: str) -> None:
    """Check the value of a setting. Skip a computed setting that would build a component."""
    value = parser[name]
    items = value if isinstance(value, list) else [value]
    computed = [item for item in items if isinstance(item, str) and item.startswith(("$", "@"))]
    if computed:
        if RULES[name] is DEVICE:  # it may need the environment of torchrun, which start_session checks
            return
        references = {reference for item in computed for reference in ReferenceResolver.match_refs_pattern(item)}
        if not all(setting_of(reference) in RULES for reference in references):
            return
        value = parser.get_parsed_content(name)
    if name in PATHS and isinstance(value, str) and "::" in value and value == parser[name]:
        raise InputError(f"--{name} {value}: MONAI writes :: for # in a config; give such a path as an option")
    check_value(name, value)
