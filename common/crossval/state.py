"""Keep the state of a cross-validation on disk, and refuse to continue it with other settings or cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.names import first_names
from ..engines.training_folder import STATE_FILE as TRAINING_STATE
from ..errors import InputError
from ..files import CLAIM, is_own_json, make_folder, read_json, write_own_json
from ..record import made_by
from ..record.identity import case_identities
from ..reporting import check_table, noted_tables
from .settings import EVALUATE, OWN, SCORES, WEIGHTS, Settings

STATE_FILE = "crossval.json"  # in the folder of the results, and in that of each fold
MAY_DIFFER = ("device", "num_workers", "cache_rate", "cache_device")  # they belong to the machine
SHOWN = 60  # characters of a value in a message


def check_unchanged(settings: Settings) -> None:
    """Check that settings and cases are those that the cross-validation began with; note them if it begins.

    A cross-validation begins again if no fold has saved an epoch, as after a wrong value of an option.

    Raises:
        InputError: a setting or a case differs, or the file of the state was changed.
    """
    file, cases = settings.out / STATE_FILE, _case_digests(settings)
    if not file.exists() and (settings.out / WEIGHTS).exists():
        raise InputError(f"--out {settings.out}: holds {WEIGHTS} of another training; choose another folder")
    if not file.exists() or (is_own_json(file) and not _has_begun(settings)):
        write_own_json({**_settings_of(settings), "cases": cases}, file)
        return
    check_settings(settings)
    others = _read(file)["cases"]
    if changed := sorted(case for case in {*cases, *others} if cases.get(case) != others.get(case)):
        raise InputError(
            f"{settings.dataset_dir / 'dataset.json'}: {first_names(changed)} differ from the cases in {file} (fold, "
            f"class, image or label); {_elsewhere(settings)}"
        )


def check_settings(settings: Settings) -> None:
    """Check that bundle and settings are those of the cross-validation in the folder of the results.

    Raises:
        InputError: a setting differs, or the file of the state was changed.
    """
    file, own = settings.out / STATE_FILE, _settings_of(settings)
    before, elsewhere = _read(file), _elsewhere(settings)
    if before["bundle"] != own["bundle"]:
        raise InputError(f"{file}: a cross-validation of {before['bundle']}, not of {own['bundle']}; {elsewhere}")
    given, noted = dict(_values(own["settings"])), dict(_values(before["settings"]))
    for key in [*given, *noted]:
        if given.get(key) != noted.get(key):
            shown = ", ".join(f"{_shown(values, key)} {where}" for values, where in ((given, "here"), (noted, "in")))
            raise InputError(f"{key}: {shown} {file}; {elsewhere}")


def _settings_of(settings: Settings) -> dict[str, Any]:
    config = {key: value for key, value in settings.config(EVALUATE).items() if key not in {*OWN, *MAY_DIFFER}}
    own: dict[str, Any] = json.loads(json.dumps({"bundle": settings.bundle.name, "settings": config}))
    return own


def _elsewhere(settings: Settings) -> str:
    return f"continue with the values that it began with, or choose another folder than --out {settings.out}"


def _has_begun(settings: Settings) -> bool:
    """Return whether a fold has saved an epoch, or another process works on one."""
    return _any_fold_has(settings, (TRAINING_STATE, WEIGHTS, STATE_FILE, CLAIM))


def _any_fold_has(settings: Settings, names: Sequence[str]) -> bool:
    return any((folder / name).exists() for folder in settings.out.glob("fold*") for name in names)


def check_evaluation(settings: Settings) -> None:
    """Check that the overlay of the evaluation is that of its earlier folds; note it if no fold has scores yet.

    Raises:
        InputError: the overlay or the file of the state was changed.
    """
    if settings.evaluation_overlay is None:
        return
    file, overlay = settings.tables / STATE_FILE, read_json(settings.evaluation_overlay)
    has_begun = _any_fold_has(settings, [f"{settings.scores}/{name}" for name in ("scores.csv", CLAIM)])
    if not file.exists() or (is_own_json(file) and not has_begun):
        make_folder(settings.tables)
        write_own_json({"evaluation": overlay}, file)
    elif _read(file)["evaluation"] != overlay:
        raise InputError(
            f"--evaluation_overlay {settings.evaluation_overlay}: changed since the evaluations in {settings.tables}; "
            "save it under another name, which gives its scores another folder"
        )


def _case_digests(settings: Settings) -> dict[str, str]:
    """Return the SHA-256 of the entries and files of each case."""
    digests = {}
    cases = settings.all_cases()
    for case, identity in zip(cases, case_identities(cases)):
        entries = {key: value for key, value in case.items() if key not in ("image", "label")}
        text = json.dumps({**entries, **identity}, sort_keys=True, default=str)
        digests[case["case"]] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def _values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each entry of a config, except lists and objects."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path, value
    for key, item in items:
        yield from _values(item, f"{path}::{key}" if path else str(key))


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _read(file: Path) -> dict[str, Any]:
    if not is_own_json(file):
        raise InputError(f"{file}: not written by crossval, or changed since; move its folder away")
    content: dict[str, Any] = read_json(file)
    return content


def is_trained(folder: Path) -> bool:
    """Return whether the training of a fold has ended.

    Raises:
        InputError: the weights or their record were changed since.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return False
    if _read(file)["made_by"] != made_by(folder / WEIGHTS):
        raise InputError(
            f"{folder / 'model.pt'}: this file or its run.json was changed or removed since the training ended; move "
            f"{folder} away, and the same command trains the fold again"
        )
    return True


def is_evaluated(folder: Path, name: str = SCORES) -> bool:
    """Return whether an evaluation of a fold has ended; its scores are in the folder ``name`` of the fold.

    Raises:
        InputError: the weights or a table were changed since.
    """
    if not (is_trained(folder) and name in _evaluated(folder)):
        return False
    tables = noted_tables(folder / name)
    if not tables or not all(table.exists() for table in tables):
        return False
    for table in tables:
        check_table(table, made_by(folder / WEIGHTS))
    return True


def has_evaluation(folder: Path) -> bool:
    """Return whether any evaluation of a fold has ended.

    Raises:
        InputError: the weights were changed since.
    """
    return is_trained(folder) and bool(_evaluated(folder))


def note_trained(folder: Path) -> None:
    """Note that the training of a fold has ended."""
    write_own_json({"evaluated": [], "made_by": made_by(folder / WEIGHTS)}, folder / STATE_FILE)


def note_evaluated(folder: Path, name: str) -> None:
    """Note that the evaluation with its scores in the folder ``name`` has ended."""
    evaluated = sorted({*_evaluated(folder), name})
    write_own_json({"evaluated": evaluated, "made_by": made_by(folder / WEIGHTS)}, folder / STATE_FILE)


def _evaluated(folder: Path) -> list[str]:
    """Return the folders of the evaluations that have ended; a file of an earlier version names none."""
    names: list[str] = _read(folder / STATE_FILE).get("evaluated", [])
    return names
