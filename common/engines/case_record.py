"""Read the record beside the results of a case, and check that the results are those that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.names import safe_name
from ..errors import InputError
from ..files import read_json, sha256

BEGUN, DONE, FAILED = "begun", "done", "failed"  # states of a case in its record


def can_name_files(name: str) -> bool:
    """Return whether a case may give its name to files."""
    try:
        return safe_name(name) == name
    except InputError:
        return False


def read_case_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: if the file is not a record.
    """
    content = read_json(path)
    parts = {"case": str, "state": str, "input": dict, "weights": str, "record": str, "results": dict}
    right = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in parts.items())
    before = content.get("before", {"results": {}}) if right else None
    before_is_right = isinstance(before, dict) and isinstance(before.get("results"), dict)
    if not before_is_right or "sha256" not in content["input"] or not isinstance(content.get("channels", {}), dict):
        raise InputError(
            f"{path}: not a record of a result, so it is not replaced; move it, or choose another --output_dir"
        )
    return content


def recorded_results(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each result of a case by its name, those before a failure included."""
    return {**record["results"], **record.get("before", {}).get("results", {})}


def own_record(path: Path, results: Sequence[Path]) -> dict[str, Any] | None:
    """Return the record of a case, or None without one, and check that its results may be replaced.

    Args:
        path: file of the record.
        results: results of the case that exist.

    Raises:
        InputError: a result is a folder, has no record or was changed since, or the record is another file.
    """
    if folders := [file for file in results if file.is_dir()]:
        raise InputError(
            f"{folders[0]}: a folder, expected a result of this project or nothing; move it, or choose another "
            "--output_dir"
        )
    if not path.exists():
        if results:
            raise InputError(
                f"{results[0]}: no {path.name} beside it, so its scan is unknown and the file is not replaced; "
                "move it, or choose another --output_dir"
            )
        return None
    record = read_case_record(path)
    known = recorded_results(record)
    for file in results if record["state"] != BEGUN else ():
        if known.get(file.name) != sha256(file):
            raise InputError(
                f"{file}: changed since it was written, so it is not replaced; move it, or choose another --output_dir"
            )
    return record
