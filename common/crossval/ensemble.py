"""Write the ensemble of the networks of the finished folds: as a config, and as one file of weights with its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from monai.bundle import ConfigParser

from ..data.listed_cases import files_of
from ..data.spacing import grid_summary
from ..data.volumes import read_grid
from ..engines.checkpoints import read_weights, save_whole
from ..files import read_json, write_own_json
from ..record import RECORD_FILE, RunRecord, read_record
from ..record.settings import difference, resolved_setting, same_setting
from .settings import TRAIN, WEIGHTS, Settings

ENSEMBLE = "ensemble.json"


def write_ensemble(settings: Settings, folds: Sequence[int]) -> str:
    """Write ``ensemble.json``, and ``model.pt`` with ``run.json``, into the folder of the results.

    The network of the members is that of their records, so that the ensemble needs no overlay of the training.

    Args:
        settings: settings of the cross-validation.
        folds: the finished folds, at least one.

    Returns:
        a sentence why the folds form no ensemble, or "" if they do.
    """
    records = [read_record(settings.folder(fold) / RECORD_FILE) for fold in folds]
    if different := _different_setting(records):
        return f"no {ENSEMBLE}: {different} of fold {folds[0]}, and the members of an ensemble need equal settings"
    config = read_json(settings.bundle / "configs" / ENSEMBLE)
    member = {**records[0].settings["network_def"], "_mode_": "callable"}
    files = [f"$@ckpt_dir + '/fold{fold}/{WEIGHTS}'" for fold in folds]
    write_own_json({**config, "member": member, "weights": files}, settings.out / ENSEMBLE)

    options = {**config["network_def"], "build": None}
    parser = ConfigParser({**settings.config(TRAIN), "weights": files, "options": options})
    network = {**resolved_setting(parser, "options"), "build": member}
    states = [read_weights(settings.folder(fold) / WEIGHTS) for fold in folds]
    joined = {f"networks.{i}.{key}": value for i, state in enumerate(states) for key, value in state.items()}
    record = _joined_record(settings, records, network)
    save_whole(joined, settings.out / WEIGHTS, lambda digest: record.with_weights(WEIGHTS, digest).write(settings.out))
    return ""


def _different_setting(records: Sequence[RunRecord]) -> str:
    """Return text on a setting of a fold that differs from that of the first fold, or ""."""
    first = records[0].settings
    for record in records[1:]:
        for key, value in record.settings.items():
            if not same_setting(value, first.get(key)):
                return difference(key, value, first.get(key)).replace("here", f"in fold {record.fold}")
    return ""


def _joined_record(settings: Settings, records: Sequence[RunRecord], network: dict[str, Any]) -> RunRecord:
    """Return the record of the ensemble, which has seen what any of its members has seen."""
    trained = _by_name(case for record in records for case in record.train_cases)
    validated = _by_name(case for record in records for case in record.validation_cases)
    tested = _by_name(case for record in records for case in record.test_cases)
    cases = settings.all_cases()
    grids = [read_grid(files_of(case)[0])[1] for case in cases if case["case"] in trained]
    return dataclasses.replace(
        records[0],
        settings={**records[0].settings, "network_def": network},
        fold=None,
        scans=grid_summary(grids),
        train_cases=list(trained.values()),
        validation_cases=[case for name, case in validated.items() if name not in trained],
        test_cases=[case for name, case in tested.items() if name not in {*trained, *validated}],
        command="; ".join(record.command for record in records),
        changes=None,
        weights=None,
    )


def _by_name(cases: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {case["case"]: case for case in cases}
