"""Apply the record of weights: use them with its settings, and not on cases that they have seen."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..data.folds import SECTIONS
from ..data.names import first_names
from ..errors import InputError, show_input_errors_in_one_line
from ..files import read_json
from ..overlays import used_settings
from ..rules import RULES, parse_bool, setting_of
from ..running_config import Given, running_config
from .create import read_cases
from .identity import case_identities, digest_of
from .run_record import RunRecord, read_records, record_path
from .settings import ABSENT, difference, is_plain, resolved_setting, same_setting

SCANS = "scans"  # setting with orientations and voxel sizes of the training scans
NETWORK, MEMBER = "network_def", "member"  # settings of the network, and of the networks of an ensemble
BUILD = "build"  # argument of an ensemble: the component of its networks
# The record gives the default of these. They may differ, because the weights fit any value.
MAY_DIFFER = ("keep", "label_map", "levels", "overlap", "slice_step", "window_step")

logger = logging.getLogger(__name__)


def use_record(weights: str | Path | Sequence[str | Path], configs: Sequence[str]) -> None:
    """Set the settings of the calling config to those in the record of its weights.

    An overlay or option with another value is refused. The fold is the recorded one if the data list is that of the
    training. A warning names another bundle or version than the recorded one. Weights without a record change nothing.

    Args:
        weights: file, list of files of an ensemble, or "untrained".
        configs: names of the bundle's config files in use, without ``.json``. A setting that differs from these files
            comes from an overlay or an option.

    Raises:
        InputError: a setting contradicts the record or is out of range, or records of an ensemble contradict each
            other.
    """
    show_input_errors_in_one_line()
    parser, given = running_config()
    records = read_records(weights)
    if not records:
        return
    path = record_path(weights if isinstance(weights, (str, Path)) else weights[0])
    for record in records:
        warn_of_other_bundle(parser.get("_meta_", {}), record.bundle, path)
    folder = Path(str(parser.get_parsed_content("bundle_root"))) / "configs"
    if not isinstance(weights, (str, Path)):
        configs = [*configs, "ensemble"]
    files = [file for name in configs if (file := folder / f"{name}.json").is_file()]
    own = ConfigParser.load_config_files([str(file) for file in files]) if files else {}
    set_by_user = _settings_given(given, files)
    settings = records[0].settings
    for other in records[1:]:
        for key in settings:
            if not same_setting(other.settings.get(key), settings[key]):
                raise InputError(f"{difference(key, other.settings.get(key), settings[key])} of the same ensemble")
    if not isinstance(weights, (str, Path)):
        settings = {MEMBER if key == NETWORK else key: value for key, value in settings.items()}
    train = folder / "train.json"
    apply_settings(parser, settings, own, set_by_user, path, read_json(train) if train.is_file() else {})
    if SCANS in parser.get("") and len(records) == 1:
        parser[SCANS] = records[0].scans
    if len(records) == 1:
        _apply_fold(parser, records[0], path)
    parser.ref_resolver.reset()


def warn_of_other_bundle(meta: Mapping[str, Any], recorded: Mapping[str, str], path: Path) -> None:
    """Log a warning if another bundle, or another version of it, trained the weights.

    Args:
        meta: metadata of the bundle in use, or an empty dictionary.
        recorded: name and version in the record.
        path: file of the record.
    """
    differ = [key for key in ("name", "version") if meta.get(key) and recorded.get(key) not in (None, "", meta[key])]
    if "name" in differ:
        logger.warning(
            "%s: another bundle trained these weights: %s, and this is %s; use the bundle of the weights, since codes "
            "and texts of the results come from this one",
            path, recorded["name"], meta["name"],
        )  # fmt: skip
    elif differ:
        logger.warning(
            "%s: version %s of this bundle trained these weights, and this is %s; results may differ, see changelog in "
            "configs/metadata.json",
            path, recorded["version"], meta["version"],
        )  # fmt: skip


def apply_settings(
    parser: ConfigParser,
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
    set_by_user: Collection[str],
    path: Path,
    train: Mapping[str, Any],
) -> None:
    """Set recorded settings in a config, if no overlay or option contradicts them.

    Args:
        parser: config that gets the settings.
        settings: recorded settings.
        own: settings of the bundle's own configs, as the files have them.
        set_by_user: names of the settings that overlays and options set, also to the bundle's own value.
        path: file of the record, for messages.
        train: content of the bundle's ``train.json``.

    Raises:
        InputError: a setting contradicts the record, a recorded value is out of range, or the config lacks a setting
            with another value than the bundle's.
    """
    for key, value in settings.items():
        _check_range(key, value, path)
        _check_list(parser, key, value, path)
        if _is_the_same(parser, key, value, settings):
            continue
        if key in parser.get(""):
            _apply_setting(parser, key, value, own.get(key), key in set_by_user, path)
        elif key not in MAY_DIFFER and not same_setting(value, _training_value(parser, train, key, settings)):
            raise InputError(
                f"{key}: the weights were trained with another value than the bundle's ({path}), and this config has "
                "no such setting; give an overlay that does the same as in the training"
            )


def _is_the_same(parser: ConfigParser, key: str, recorded: Any, settings: Mapping[str, Any]) -> bool:
    """Return whether a config has a recorded value already, also by references to other recorded settings."""
    config = parser.get("")
    if key not in config or not used_settings({key: config[key]}) <= settings.keys():
        return False
    return same_setting(resolved_setting(parser, key), recorded)


def _check_range(key: str, value: Any, path: Path) -> None:
    """Check a recorded value by the rule of its option, since a user may have edited the record."""
    is_expression = isinstance(value, str) and value.startswith(("$", "@"))
    if key in RULES and not is_expression and not RULES[key].holds(value):
        raise InputError(
            f"{path}: 'settings': {key} is {json.dumps(value)}; expected {RULES[key].expected}; use the file that the "
            "training wrote"
        )


def _check_list(parser: ConfigParser, key: str, value: Any, path: Path) -> None:
    if isinstance(parser.get("").get(key), list) and not isinstance(value, list):
        raise InputError(
            f"{path}: 'settings': {key} is {json.dumps(value)}; expected a list; use the file that the training wrote"
        )


def _apply_setting(parser: ConfigParser, key: str, recorded: Any, default: Any, set_by_user: bool, path: Path) -> None:
    raw = parser[key]
    if not is_plain(raw):  # an object that a program has set, such as a network
        return
    if same_setting(raw, recorded):
        return
    is_given = set_by_user or raw != default
    if is_given and key in MAY_DIFFER:
        return
    if isinstance(recorded, dict) and isinstance(raw, dict) and "_target_" in raw:
        # An overlay may change some arguments of a component. The others keep their recorded values.
        own = default if isinstance(default, dict) and not (set_by_user and raw == default) else {}
        given = resolved_setting(parser, key) if is_given else {}
        # an overlay describes the network, and not an ensemble of it
        described = recorded[BUILD] if isinstance(recorded.get(BUILD), dict) else recorded
        for name in given.keys() - {"_mode_", "_requires_"}:
            if raw[name] != own.get(name, ABSENT):
                _check_recorded(f"{key}::{name}", given[name], described.get(name, ABSENT), path)
        recorded = {**recorded, **{name: raw[name] for name in ("_mode_", "_requires_") if name in raw}}
    elif is_given:
        _check_recorded(key, resolved_setting(parser, key), recorded, path)
    parser[key] = _with_targets_of(raw, recorded)


def _with_targets_of(raw: Any, recorded: Any) -> Any:
    """Return a recorded setting with the targets of a config, since a package has the code under another name."""
    if isinstance(raw, dict) and isinstance(recorded, dict):
        changed = {key: _with_targets_of(raw.get(key), value) for key, value in recorded.items()}
        if "_target_" in raw and same_setting(raw["_target_"], recorded.get("_target_")):
            changed |= {name: raw[name] for name in ("_target_", "_mode_", "_requires_") if name in raw}
        return changed
    if isinstance(raw, list) and isinstance(recorded, list) and len(raw) == len(recorded):
        return [_with_targets_of(one, other) for one, other in zip(raw, recorded)]
    return recorded


def _check_recorded(key: str, given: Any, recorded: Any, path: Path) -> None:
    if not same_setting(given, recorded):
        raise InputError(
            f"{difference(key, given, recorded)} of the weights ({path}); leave {key} out of overlay and options, or "
            "use weights that were trained with this value"
        )


def _apply_fold(parser: ConfigParser, record: RunRecord, path: Path) -> None:
    fold = parser.get("fold")
    if record.fold is None or fold == record.fold:
        return
    if fold is not None:
        if parse_bool(parser.get("allow_seen_cases", False)):
            return
        raise InputError(
            f"fold: {fold} here, {record.fold} in {path}: the weights have seen the cases of other folds in training; "
            "leave --fold out"
        )
    root = Path(str(parser.get_parsed_content("dataset_dir")))
    if (root / "dataset.json").is_file():
        listed = {case["case"]: case for section in SECTIONS for case in read_cases(root, section, None)}
        tested = record.test_cases
        if tested and all(
            case["case"] in listed and digest_of(listed[case["case"]]["image"]) == case["image"] for case in tested
        ):
            parser["fold"] = record.fold


def check_unseen(cases: Sequence[Mapping], weights: str | Path | Sequence[str | Path], allow: bool | str) -> None:
    """Check that no case and no patient of an evaluation has trained or validated the weights.

    Cases of the weights that the training began from count too.
    A case is recognised by the content of its image files, a patient by the name in the data list.

    Args:
        cases: cases to evaluate.
        weights: as for :func:`use_record`.
        allow: whether to log a warning instead of raising an error.

    Raises:
        InputError: cases were seen; the message names them and their lists.
    """
    seen: list[str] = []
    records = read_records(weights)
    identities = case_identities(cases) if records else []  # reads every scan
    for record in records:
        for role in ("train_cases", "validation_cases", "init_cases"):
            recorded = getattr(record, role) or []
            images = {case.get("image"): case["case"] for case in recorded if case.get("image")}
            patients = {case.get("patient"): case["case"] for case in recorded if case.get("patient") is not None}
            for case in identities:
                if case["image"] in images or case["patient"] in patients:
                    other = images.get(case["image"]) or patients[case["patient"]]
                    why = "" if case["image"] in images else f" (the same patient, {case['patient']}, as {other})"
                    seen.append(f"{case['case']} in {role}{why}")
    seen = list(dict.fromkeys(seen))
    if seen and parse_bool(allow):
        logger.warning(
            "%d cases were seen in training; their scores do not test the weights (%s)", len(seen), first_names(seen)
        )
    elif seen:
        raise InputError(
            f"the weights have seen {len(seen)} of {len(cases)} cases: {first_names(seen)}; evaluate the held-out "
            "fold, or give --allow_seen_cases true"
        )


def _settings_given(given: Given | None, own: Sequence[Path]) -> set[str]:
    """Return the settings that options and config files of the user set."""
    if given is None:
        return set()
    files = [given.files] if isinstance(given.files, (str, Path)) else given.files
    known = [path.resolve() for path in own]
    others = [str(file) for file in files if Path(file).resolve() not in known]
    keys = [key for other in others for key in ConfigParser.load_config_file(other)]
    return {setting_of(key) for key in (*given.overrides, *keys)}


def _training_value(parser: ConfigParser, train: Mapping[str, Any], key: str, settings: Mapping[str, Any]) -> Any:
    """Return the value of a setting of ``train.json`` if the other settings have their recorded values."""
    training = ConfigParser(copy.deepcopy(dict(train)))
    root = str(parser.get_parsed_content("bundle_root"))
    for name, value in {"bundle_root": root, **settings}.items():
        if name != key:
            training[name] = value
    return resolved_setting(training, key) if key in training.get("") else None
