"""Define rules for the types and ranges of options, and check their names and values."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from .errors import InputError, UsageError

# Settings of earlier versions and their replacements.
RENAMED = {"target": "labels and label_map, such as --labels \"{'liver': 1, 'tumour': 2}\" --label_map \"{}\""}


class Rule(NamedTuple):
    """Define the valid values of an option.

    Args:
        expected: description of the valid values, for messages.
        holds: function value -> bool; returns whether a value is valid.
    """

    expected: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole_number(least: int, most: float = math.inf) -> Rule:
    """Return the rule for an integer from ``least`` to ``most``."""
    bounds = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
    return Rule(f"a whole number {bounds}", lambda value: _is_whole(value) and least <= value <= most)


def number(least: float, most: float = math.inf) -> Rule:
    """Return the rule for a number from ``least`` to ``most``."""
    bounds = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
    return Rule(f"a number {bounds}", lambda value: _is_number(value) and least <= value <= most)


def fraction_below_one() -> Rule:
    """Return the rule for a number from 0 to below 1."""
    return Rule("a number from 0 to below 1", lambda value: _is_number(value) and 0 <= value < 1)


def positive_number() -> Rule:
    """Return the rule for a number above 0."""
    return Rule("a number above 0", lambda value: _is_number(value) and value > 0)


def one_of(*allowed: str) -> Rule:
    """Return the rule for a value that is one of several words."""
    return Rule(f"{', '.join(allowed[:-1])} or {allowed[-1]}", lambda value: value in allowed)


def or_null(rule: Rule) -> Rule:
    """Return a rule that allows null and the values of ``rule``."""
    return Rule(f"{rule.expected}, or null", lambda value: value is None or rule.holds(value))


def three_of(rule: Rule, example: str) -> Rule:
    """Return the rule for a list of three values that all satisfy ``rule``."""
    expected = f'three values, each {rule.expected}, such as "{example}"'
    return Rule(expected, lambda value: _is_list(value) and len(value) == 3 and all(map(rule.holds, value)))


def one_or_three_of(rule: Rule, example: str) -> Rule:
    """Return the rule for a value that satisfies ``rule``, or a list of three such values."""
    three = three_of(rule, example)
    return Rule(f"{rule.expected}, or {three.expected}", lambda value: rule.holds(value) or three.holds(value))


def list_of(rule: Rule, example: str) -> Rule:
    """Return the rule for a list of one or more values that all satisfy ``rule``."""
    expected = f'a list, each {rule.expected}, such as "{example}"'
    return Rule(expected, lambda value: _is_list(value) and len(value) > 0 and all(map(rule.holds, value)))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _are_transforms(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(isinstance(item, (dict, str)) for item in value)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false"))


def _is_device(value: Any) -> bool:
    import torch  # imported late: it takes seconds, and most rules do not need it

    if isinstance(value, torch.device):
        return True
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        return False
    return device.type != "cuda" or (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count())


def _is_range(value: Any) -> bool:
    return _is_list(value) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_names(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and len({*map(str, value)}) == len(value)


SPACING = Rule("a number above 0, or -1 to keep it", lambda value: _is_number(value) and (value > 0 or value == -1))
SWITCH = Rule("true or false", _is_switch)
DEVICE = Rule("cpu, or cuda or cuda:N on a machine with CUDA", _is_device)
NAMES = Rule("""a list of different names, such as "['T1','T2']\"""", _are_names)
CASES = Rule(
    "names of cases, such as A,B",
    lambda value: bool(value) and (isinstance(value, str) or (_is_list(value) and all(map(_is_name, value)))),
)
SERIES = Rule(
    "best, a number or a pattern such as *thorax*, or one for each modality, such as T1=4,T2=5",
    lambda value: _is_name(value) or _is_whole(value),
)
PATH = Rule("a path", lambda value: isinstance(value, (str, os.PathLike)) and str(value) != "")
WEIGHTS = Rule(
    "a path, or a list of paths",
    lambda value: PATH.holds(value) or (_is_list(value) and len(value) > 0 and all(map(PATH.holds, value))),
)

EPOCHS = three_of(whole_number(0), "[1,1,18]")

PATHS = {
    **dict.fromkeys(["bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "log_file", "demo_dir"], PATH),
    "weights": WEIGHTS,
    **dict.fromkeys(["init_weights", "status"], or_null(PATH)),
}
TRACKING = dict.fromkeys(["tracking_uri", "experiment_name", "run_name"], or_null(Rule("a text", _is_name)))
RULES: dict[str, Rule] = {
    **PATHS,
    **TRACKING,
    "save_execute_config": or_null(Rule("true, false or a path", lambda value: _is_switch(value) or PATH.holds(value))),
    "load": Rule("a list of transforms, the first of which reads the scan", _are_transforms),
    "labels": Rule("names and values, such as \"{'liver': 1}\"", lambda value: isinstance(value, dict) and bool(value)),
    "regions": Rule("names of regions and their labels", lambda value: isinstance(value, dict)),
    "label_map": Rule('values and their labels, such as "{1: 1, 2: 1}"', lambda value: isinstance(value, (dict, list))),
    **dict.fromkeys(["distributed", "resume", "retry", "amp", "clean", "transfer", "gated"], SWITCH),
    **dict.fromkeys(["cross_entropy_on_sigmoid", "self_transfer", "allow_seen_cases"], SWITCH),
    **dict.fromkeys(["dicom_seg", "probabilities"], SWITCH),
    **dict.fromkeys(["device", "cache_device"], DEVICE),
    **dict.fromkeys(["max_epochs", "updates_per_epoch", "batch_size", "val_interval"], whole_number(1)),
    "enhancing_every": whole_number(1),
    **dict.fromkeys(["window_step", "slice_step", "in_plane"], whole_number(1)),
    **dict.fromkeys(["warm_up_epochs", "freeze_encoder", "warm_up"], whole_number(0)),
    **dict.fromkeys(["num_workers", "iterations", "slab_margin"], whole_number(0)),
    "seed": whole_number(0, 2**32 - 1),
    "fold": or_null(whole_number(0)),
    "cases": or_null(CASES),
    "series": or_null(SERIES),
    "case_timeout": or_null(positive_number()),
    "limit": or_null(whole_number(1)),
    "picture_interval": or_null(whole_number(0)),
    **dict.fromkeys(["halve_every", "patience"], or_null(whole_number(1))),
    "levels": whole_number(1, 3),
    **dict.fromkeys(["learning_rate", "fine_tuning_rate", "slice_thickness"], positive_number()),
    **dict.fromkeys(["weight_decay", "lung_margin", "focal_gamma", "focal_weight", "cross_entropy"], number(0)),
    **dict.fromkeys(["cache_rate", "tumour_share", "rotate_probability", "class_weight", "focal_alpha"], number(0, 1)),
    **dict.fromkeys(["momentum", "validation_share"], fraction_below_one()),
    "overlap": one_or_three_of(fraction_below_one(), "[0,0,0.5]"),
    **dict.fromkeys(["roi_size", "crop_size", "keep"], three_of(whole_number(1), "[64,64,16]")),
    **dict.fromkeys(["margin", "max_offset", "jitter"], three_of(whole_number(0), "[8,8,4]")),
    "curriculum": Rule(
        'three whole numbers of epochs, not all 0, such as "[1,1,18]"',
        lambda value: EPOCHS.holds(value) and sum(value) > 0,
    ),
    "spacing": three_of(SPACING, "[0.5,0.5,-1]"),
    "channels": list_of(whole_number(0), "[0,1]"),
    "hounsfield_range": Rule('two numbers, the lower first, such as "[-200,200]"', _is_range),
    **dict.fromkeys(["modalities", "classes"], NAMES),
    "precision": one_of("auto", "bfloat16", "float32"),
    "section": one_of("training", "validation", "test"),
    "task": one_of("both", "seg", "class"),
    "weighting": one_of("uncertainty", "equal"),
    "label_code": or_null(one_of("brats", "brats2015", "brats2023", "msd_task01")),
}


def check_value(name: str, value: Any, rules: Mapping[str, Rule] = RULES) -> None:
    """Check the value of an option by its rule.

    Args:
        name: name of the option; an option without a rule may have any value.
        value: value from a config, Python or the command line.
        rules: option name -> rule.

    Raises:
        UsageError: if the value has another type or is outside its range.
    """
    rule = rules.get(name)
    if rule is not None and not rule.holds(value):
        raise UsageError(f"--{name} {value}: expected {rule.expected}")


def parse_bool(value: bool | str) -> bool:
    """Return the value of a switch. The command line gives it as the word ``true`` or ``false``.

    Raises:
        UsageError: if the value is neither a bool nor one of these words.
    """
    if not SWITCH.holds(value):
        raise UsageError(f"{value!r}: expected {SWITCH.expected}")
    return value if isinstance(value, bool) else value.lower() == "true"


def check_setting(key: str, known: Collection[str], where: str, mark: str = "") -> None:
    """Refuse an unknown setting or option, such as a misspelt one.

    Args:
        key: key of a config, or name of an option.
        known: names of the known settings.
        where: file, bundle or verb that defines the settings, for the message.
        mark: dashes before the name of an option, or "" for a setting.

    Raises:
        InputError: if the setting is unknown. The message names the closest known setting.
        UsageError: if the option is unknown.
    """
    setting = setting_of(key)
    if setting in known:
        return
    fix = fix_of_unknown(setting, known, mark) or "leave it out"
    if mark:
        raise UsageError(f"unknown option {mark}{key} of {where}; {fix}")
    raise InputError(f"unknown setting {key!r} of {where}; {fix}")


def fix_of_unknown(setting: str, known: Collection[str], mark: str = "") -> str | None:
    """Return what to write instead of an unknown setting, or None if no known one has nearly its name.

    Args:
        setting, known, mark: as for :func:`check_setting`.
    """
    if setting in RENAMED:
        return f"use {RENAMED[setting]}"
    near = [mark + name if mark else repr(name) for name in difflib.get_close_matches(setting, known, n=1)]
    return f"did you mean {near[0]}?" if near else None


def setting_of(key: str) -> str:
    """Return the setting that a key or an option changes: ``load`` for ``load``, ``+load`` and ``load::0``."""
    return re.split("::|#", key.lstrip("+"))[0]
