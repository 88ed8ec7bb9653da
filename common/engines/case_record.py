"""Read the record beside the result of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.names import safe_name
from ..errors import InputError
from ..files import read_json


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
