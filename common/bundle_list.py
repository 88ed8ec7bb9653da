"""List the bundles of this repository from their configs, without the imports that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json

BUNDLES = Path(__file__).parents[1] / "bundles"


def bundle_table(as_json: bool) -> str:
    """Return the bundles as a table, or as a JSON array for programs."""
    entries = bundle_entries()
    return _as_json(entries) if as_json else _as_text(entries)


def bundle_entries(folder: Path = BUNDLES) -> list[dict[str, Any]]:
    """Return what ``list`` says of each bundle in a folder.

    Raises:
        InputError: the folder has no bundles, or a config lacks a key.
    """
    entries = []
    for path in sorted(folder.glob("*/configs/metadata.json")):
        try:
            metadata, train = read_json(path), read_json(path.with_name("train.json"))
            entries.append(
                {
                    "name": path.parents[1].name,
                    "version": metadata["version"],
                    "task": metadata["task"],
                    "modalities": train["modalities"],
                    "labels": train["labels"],
                    "weights": (path.parents[1] / "models" / "model.pt").exists(),
                }
            )
        except KeyError as error:
            raise InputError(f"{path.parent}: no {error} in metadata.json or train.json; restore the file") from error
    if not entries:
        raise InputError(f"{folder}: no bundles; run the command in a copy of the repository")
    return entries


def _as_json(entries: list[dict[str, Any]]) -> str:
    return json.dumps(entries, indent=2)


def _as_text(entries: list[dict[str, Any]]) -> str:
    rows = [["bundle", "version", "weights", "modalities", "labels"]]
    for entry in entries:
        labels = ", ".join(f"{name} {value}" for name, value in entry["labels"].items())
        shipped = "yes" if entry["weights"] else "no"
        rows.append([entry["name"], entry["version"], shipped, ", ".join(entry["modalities"]), labels])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
