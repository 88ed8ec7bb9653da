"""Describe how the result of a case was made, for the record beside it and for the table of a batch."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.dicom_trees import series_uid
from ..errors import InputError
from ..files import read_json
from ..reporting import check_table, own_table
from ..running_config import running_config

TABLE = "cases.csv"
# Settings of a run that do not change a result, or that name folders of the machine.
NOT_OF_RESULTS = frozenset(
    ("imports", "initialize", "run", "bundle_root", "dataset_dir", "ckpt_dir", "output_dir", "weights", "log_file",
     "status", "case_timeout", "cases", "limit", "fold", "series", "resume", "retry", "distributed", "device",
     "dicom_seg", "probabilities")
)  # fmt: skip


def about_run() -> dict[str, Any]:
    """Return name and version of the bundle and the options that differ from its defaults.

    Without a config, as in a program of its own, the result is empty.
    """
    try:
        parser, _ = running_config()
    except InputError:
        return {}
    meta = parser.get("_meta_", {}) or {}
    default = Path(str(parser.get_parsed_content("bundle_root", default=""))) / "configs" / "inference.json"
    try:
        defaults = read_json(default)
    except InputError:
        defaults = {}
    changed = [
        name
        for name, value in defaults.items()
        if name not in NOT_OF_RESULTS and not name.startswith("_") and parser.get(name) != value
    ]
    options = {name: json.loads(json.dumps(parser[name], default=str)) for name in changed}
    modalities = parser.get("modalities", [])
    return {
        "bundle": {"name": str(meta.get("name", "")), "version": str(meta.get("version", ""))},
        "modality": ", ".join(map(str, modalities)) if isinstance(modalities, (list, tuple)) else str(modalities),
        "torch_version": torch.__version__,
        "options": options,
    }


def origin_of_case(
    images: Sequence[str],
    labels: Mapping[str, int],
    files: Sequence[str],
    seconds: float | None,
    volumes: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return the entries of a record that differ by case.

    ``classes``, ``num_classes``, ``output_files`` and ``runtime_seconds`` have the names of TotalSegmentator's report.

    Args:
        images: files of the scan.
        labels: names to values of the mask.
        files: names of the results.
        seconds: time of the work in s.
        volumes: volume of each label in ml.
    """
    try:
        uids = [series_uid(Path(image)) for image in images]
    except (InputError, OSError):  # a damaged scan, which its reason describes
        uids = []
    time = None if seconds is None else round(seconds, 2)
    return {
        **({"series_uids": uids} if any(uids) else {}),
        **({"seconds": time, "runtime_seconds": time} if time is not None else {}),
        **(
            {"classes": {str(value): name for name, value in labels.items()}, "num_classes": len(labels)}
            if labels
            else {}
        ),
        **({"volumes_ml": dict(volumes)} if volumes else {}),
        "output_files": list(files),
    }


def check_case_table(folder: Path) -> None:
    """Check that :func:`write_case_table` may write its table, before the first case.

    Raises:
        InputError: another file has this name.
    """
    check_table(folder / TABLE)


def write_case_table(records: Iterable[Mapping[str, Any]], labels: Mapping[str, int], folder: Path) -> None:
    """Write ``cases.csv``: a row for each case of a batch, from the records of the cases.

    Raises:
        InputError: if another file has this name.
    """
    rows = [
        {
            "case": record["case"],
            "state": record["state"],
            "reason": record.get("reason", ""),
            **{key: record.get(key, "") for key in ("seconds", "device", "precision", "weights")},
            "bundle": " ".join((record.get("bundle") or {}).values()),
            "input": " ".join(record["input"]["files"]),
            "series_uids": " ".join(filter(None, record.get("series_uids", []))),
            **{f"{name}_ml": record.get("volumes_ml", {}).get(name, "") for name in labels},
        }
        for record in records
    ]
    if not rows:
        return
    with own_table(folder / TABLE) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
