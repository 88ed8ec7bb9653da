"""Using weights as their record says: with its settings, and not on cases that they have seen."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..data.cases import SECTIONS
from ..errors import InputError, show_input_errors_in_one_line
from ..options import Given, parse_bool, running_config, setting_of
from .cases import case_identities, digest_of, first_names
from .making import listed_cases
from .run_record import RunRecord, record_path, records_of
from .settings import ABSENT, difference, is_plain, resolved_setting, same_setting

SCANS = "scans"  # what the training scans were like
NETWORK, MEMBER = "network_def", "member"  # the network, and that of an ensemble's members
# The record gives the default of these; another value does not contradict the weights.
MAY_DIFFER = ("keep", "label_map", "overlap", "slice_step", "window_step")

logger = logging.getLogger(__name__)


def use_record(weights: str | Path | Sequence[str | Path], configs: Sequence[str]) -> None:
    """Take the settings of the calling config from the record of its weights.

    A setting keeps the recorded value unless an overlay or an option gives another one, which is refused. The fold is
    the recorded one where the data list is that of the training. Weights without a record change nothing.

    Args:
        weights: file, or files of an ensemble, or "untrained".
        configs: names of the bundle's own config files that are in use, without ``.json``; a setting that differs from
            them was given by an overlay or an option.

    Raises:
        InputError: a setting contradicts the record, or the records of an ensemble contradict each other.
    """
    show_input_errors_in_one_line()
    parser, given = running_config()
    records = records_of(weights)
    if not records:
        return
    path = record_path(weights if isinstance(weights, (str, Path)) else weights[0])
    folder = Path(str(parser.get_parsed_content("bundle_root"))) / "configs"
    if not isinstance(weights, (str, Path)):
        configs = [*configs, "ensemble"]
    files = [file for name in configs if (file := folder / f"{name}.json").is_file()]
    own = ConfigParser.load_config_files([str(file) for file in files]) if files else {}
    said = _settings_given(given, files)
    settings = records[0].settings
    for other in records[1:]:
        for key in settings:
            if not same_setting(other.settings.get(key), settings[key]):
                raise InputError(f"{difference(key, other.settings.get(key), settings[key])} of the same ensemble")
    if not isinstance(weights, (str, Path)):
        settings = {MEMBER if key == NETWORK else key: value for key, value in settings.items()}
    apply_settings(parser, settings, own, said, path, folder)
    if SCANS in parser.get("") and len(records) == 1:
        parser[SCANS] = records[0].scans
    if len(records) == 1:
        _use_fold(parser, records[0], path)
    parser.ref_resolver.reset()


def apply_settings(
    parser: ConfigParser,
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
    said: Collection[str],
    path: Path,
    folder: Path,
) -> None:
    """Set recorded settings in a config, where no overlay and no option contradicts them.

    Args:
        parser: config that they are set in.
        settings: recorded settings.
        own: settings of the bundle's own configs, as they stand in the files.
        said: names of the settings that the call gives, even if their value is the bundle's own.
        path: file of the record, for messages.
        folder: folder of the bundle's configs.

    Raises:
        InputError: a setting contradicts the record, or the config has no place for a changed one.
    """
    for key, value in settings.items():
        if key in parser.get(""):
            _use(parser, key, value, own.get(key), key in said, path)
        elif key not in MAY_DIFFER and not same_setting(value, as_in_training(folder, key, settings)):
            raise InputError(
                f"{key}: the weights were trained with another value than the bundle's ({path}), and this config has "
                "no such setting; give an overlay that does what the training did"
            )


def _use(parser: ConfigParser, key: str, recorded: Any, default: Any, said: bool, path: Path) -> None:
    raw = parser[key]
    if not is_plain(raw):  # a program's own object, such as a network
        return
    is_given = said or raw != default
    if is_given and key in MAY_DIFFER:
        return
    if isinstance(recorded, dict) and isinstance(raw, dict) and "_target_" in raw:
        # an overlay may change some arguments of a component, and the rest is as recorded
        own = default if isinstance(default, dict) and not (said and raw == default) else {}
        given = resolved_setting(parser, key) if is_given else {}
        for name in given.keys() - {"_mode_", "_requires_"}:
            if raw[name] != own.get(name, ABSENT):
                _check_recorded(f"{key}::{name}", given[name], recorded.get(name, ABSENT), path)
        recorded = {**recorded, **{name: raw[name] for name in ("_mode_", "_requires_") if name in raw}}
        if "_target_" in raw and same_setting(raw["_target_"], recorded.get("_target_")):
            recorded["_target_"] = raw["_target_"]  # a package has its code under another name
    elif is_given:
        _check_recorded(key, resolved_setting(parser, key), recorded, path)
    parser[key] = recorded


def _check_recorded(key: str, given: Any, recorded: Any, path: Path) -> None:
    if not same_setting(given, recorded):
        raise InputError(
            f"{difference(key, given, recorded)}: the weights were trained with the second ({path}); leave {key} "
            "out of overlay and options, or use weights that were trained with it"
        )


def _use_fold(parser: ConfigParser, record: RunRecord, path: Path) -> None:
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
        listed = {case["case"]: case for section in SECTIONS for case in listed_cases(root, section, None)}
        tested = record.test_cases
        if tested and all(
            case["case"] in listed and digest_of(listed[case["case"]]["image"]) == case["image"] for case in tested
        ):
            parser["fold"] = record.fold


def check_unseen(cases: Sequence[Mapping], weights: str | Path | Sequence[str | Path], allow: bool | str) -> None:
    """Check that no case of an evaluation, and no patient, has trained or validated the weights.

    A case is recognised by the content of its image files, a patient by the name in the data list.

    Args:
        cases: cases that are to be evaluated.
        weights: as for :func:`use_record`.
        allow: true logs a warning instead.

    Raises:
        InputError: the cases that were seen, and in which list.
    """
    seen: list[str] = []
    records = records_of(weights)
    identities = case_identities(cases) if records else []  # reads every scan
    for record in records:
        for role in ("train_cases", "validation_cases"):
            recorded = getattr(record, role)
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
            "%d cases were seen in training: their scores are no test of the weights (%s)", len(seen), first_names(seen)
        )
    elif seen:
        raise InputError(
            f"the weights have seen {len(seen)} of {len(cases)} cases: {first_names(seen)}; evaluate the held-out "
            "fold, or give --allow_seen_cases true"
        )


def _settings_given(given: Given | None, own: Sequence[Path]) -> set[str]:
    """Return the settings that a call gives, by an option or by a config file that is not the bundle's own."""
    if given is None:
        return set()
    files = [given.files] if isinstance(given.files, (str, Path)) else given.files
    known = [path.resolve() for path in own]
    others = [str(file) for file in files if Path(file).resolve() not in known]
    keys = [key for other in others for key in ConfigParser.load_config_file(other)]
    return {setting_of(key) for key in (*given.overrides, *keys)}


def as_in_training(folder: Path, key: str, settings: Mapping[str, Any]) -> Any:
    """Return what a setting of train.json comes to with the other recorded settings."""
    file = folder / "train.json"
    parser = ConfigParser(ConfigParser.load_config_file(str(file)) if file.is_file() else {})
    for name, value in {"bundle_root": str(folder.parent), **settings}.items():
        if name != key:
            parser[name] = value
    return resolved_setting(parser, key) if key in parser.get("") else None
