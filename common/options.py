"""Options of a run: their types and ranges, and texts that MONAI's command line changes."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from traceback import walk_stack
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run
from monai.bundle.reference_resolver import ReferenceResolver

from .errors import InputError, UsageError


class Rule(NamedTuple):
    """What an option may be.

    Args:
        expected: the words of the message.
        holds: tells whether a value is one of these.
    """

    expected: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int, most: float = math.inf) -> Rule:
    """Return the rule of a whole number of ``least`` to ``most``."""
    bounds = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
    return Rule(f"a whole number {bounds}", lambda value: _is_whole(value) and least <= value <= most)


def number(least: float, most: float = math.inf) -> Rule:
    """Return the rule of a number of ``least`` to ``most``."""
    bounds = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
    return Rule(f"a number {bounds}", lambda value: _is_number(value) and least <= value <= most)


def share_below_one() -> Rule:
    """Return the rule of a number from 0 to below 1."""
    return Rule("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)


def above_zero() -> Rule:
    """Return the rule of a number above 0."""
    return Rule("a number above 0", lambda value: _is_number(value) and value > 0)


def words(*allowed: str) -> Rule:
    """Return the rule of one of some words."""
    return Rule(f"{', '.join(allowed[:-1])} or {allowed[-1]}", lambda value: value in allowed)


def unless_null(rule: Rule) -> Rule:
    """Return a rule that also allows null."""
    return Rule(f"{rule.expected}, or null", lambda value: value is None or rule.holds(value))


def three(rule: Rule, example: str) -> Rule:
    """Return the rule of a list of three values."""
    expected = f'three values, each {rule.expected}, such as "{example}"'
    return Rule(expected, lambda value: _is_list(value) and len(value) == 3 and all(map(rule.holds, value)))


def listed(rule: Rule, example: str) -> Rule:
    """Return the rule of a list of at least one value."""
    expected = f'a list, each {rule.expected}, such as "{example}"'
    return Rule(expected, lambda value: _is_list(value) and len(value) > 0 and all(map(rule.holds, value)))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))


def _is_device(value: Any) -> bool:
    if isinstance(value, torch.device):
        return True
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        return False
    return device.type != "cuda" or (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count())


def _is_range(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _are_names(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and len({*map(str, value)}) == len(value)


SPACING = Rule("a number above 0, or -1 to keep it", lambda value: _is_number(value) and (value > 0 or value == -1))
SWITCH = Rule("true or false", _is_switch)
DEVICE = Rule("cpu, or with CUDA cuda or cuda:N", _is_device)
NAMES = Rule("""a list of different names, such as "['T1','T2']\"""", _are_names)
PATH = Rule("a path", lambda value: isinstance(value, (str, os.PathLike)) and str(value) != "")
WEIGHTS = Rule(
    "a path, or a list of paths",
    lambda value: PATH.holds(value) or (_is_list(value) and len(value) > 0 and all(map(PATH.holds, value))),
)

EPOCHS = three(whole(0), "[1,1,18]")

PATHS = {
    **dict.fromkeys(["bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "log_file", "demo_dir"], PATH),
    "weights": WEIGHTS,
}
RULES: dict[str, Rule] = {
    **PATHS,
    "labels": Rule("names and values, such as \"{'liver': 1}\"", lambda value: isinstance(value, dict) and bool(value)),
    "regions": Rule("names of regions and their labels", lambda value: isinstance(value, dict)),
    "label_map": Rule('values and values, such as "{1: 1, 2: 1}"', lambda value: isinstance(value, (dict, list))),
    **dict.fromkeys(["distributed", "resume", "retry", "amp", "dicom_seg", "clean", "transfer", "gated"], SWITCH),
    **dict.fromkeys(["cross_entropy_on_sigmoid", "self_transfer", "allow_seen_cases"], SWITCH),
    **dict.fromkeys(["device", "cache_device"], DEVICE),
    **dict.fromkeys(["max_epochs", "updates_per_epoch", "batch_size", "val_interval"], whole(1)),
    **dict.fromkeys(["window_step", "slice_step", "in_plane"], whole(1)),
    **dict.fromkeys(["warm_up_epochs", "num_workers", "iterations", "slab_margin"], whole(0)),
    "seed": whole(0, 2**32 - 1),
    "fold": unless_null(whole(0)),
    **dict.fromkeys(["halve_every", "patience"], unless_null(whole(1))),
    "levels": whole(1, 3),
    **dict.fromkeys(["learning_rate", "fine_tuning_rate", "slice_thickness"], above_zero()),
    **dict.fromkeys(["weight_decay", "lung_margin", "focal_gamma", "focal_weight"], number(0)),
    **dict.fromkeys(["cache_rate", "tumour_share", "rotate_probability", "class_weight", "focal_alpha"], number(0, 1)),
    **dict.fromkeys(["overlap", "momentum", "validation_share"], share_below_one()),
    **dict.fromkeys(["roi_size", "crop_size", "keep"], three(whole(1), "[64,64,16]")),
    **dict.fromkeys(["margin", "max_offset", "jitter"], three(whole(0), "[8,8,4]")),
    "curriculum": Rule(
        'three numbers of epochs, not all 0, such as "[1,1,18]"', lambda value: EPOCHS.holds(value) and sum(value) > 0
    ),
    "spacing": three(SPACING, "[0.5,0.5,-1]"),
    "channels": listed(whole(0), "[0,1]"),
    "hounsfield_range": Rule('two numbers, the lower first, such as "[-200,200]"', _is_range),
    **dict.fromkeys(["modalities", "classes"], NAMES),
    "precision": words("auto", "bfloat16", "float32"),
    "section": words("training", "validation", "test"),
    "task": words("both", "seg", "class"),
    "weighting": words("uncertainty", "equal"),
    "label_code": unless_null(words("brats", "brats2015", "brats2023", "msd_task01")),
}

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


def check_value(name: str, value: Any, rules: Mapping[str, Rule] = RULES) -> None:
    """Check the value of an option by its rule.

    Args:
        name: name of the option; one without a rule may be anything.
        value: as a config, Python or the command line gives it.
        rules: rules by the names of options.

    Raises:
        UsageError: the value is of another type or out of its range.
    """
    rule = rules.get(name)
    if rule is not None and not rule.holds(value):
        raise UsageError(f"--{name} {value}: expected {rule.expected}")


def parse_bool(value: bool | str) -> bool:
    """Return a switch of a config, which the command line gives as the word ``true`` or ``false``.

    Raises:
        UsageError: another word.
    """
    if not _is_switch(value):
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

    Unknown options and values out of their ranges are refused. Paths become the texts that the user gave: on the
    command line Fire makes numbers, lists and null of some, and MONAI writes ``::`` for ``#`` in every text.

    Raises:
        InputError: a path in a config file, or in Python, that MONAI has changed.
        UsageError: an unknown option; a value of another type or out of its range.
    """
    parser, given = running_config()
    if given is not None:
        refuse_unknown_options(given.overrides, given.files)
        if "recorded" in given.overrides:
            raise UsageError("--recorded: the bundle says what its record holds; an overlay may add to it by +recorded")
    texts = _path_texts({} if given is None else given.overrides)
    changed = {name: text for name, text in texts.items() if parser[name] != text}
    for name, text in changed.items():
        parser[name] = text if isinstance(text, list) else literal(text)
    if changed:
        parser.parse(reset=True)
    for name in RULES:
        if name in parser and name not in texts:
            _check_setting_value(parser, name)


class Given(NamedTuple):
    """What a caller of MONAI's ``create_workflow`` gave."""

    files: Any
    overrides: Mapping[str, Any]


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
    """Return the paths among overrides as the user wrote them, but for what is MONAI's language."""
    if is_bundle_command():
        overrides = {**overrides, **command_line_texts(sys.argv[2:])}
    texts: dict[str, str | list[str]] = {}
    for name, value in overrides.items():
        if name in PATHS and isinstance(value, (str, os.PathLike)):
            text = os.fspath(value)
            if not text.startswith(("$", "@", "%")):
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
