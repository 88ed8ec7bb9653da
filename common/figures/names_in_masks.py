"""Find the names of the labels in a mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.label_table import read_label_table
from ..errors import InputError
from ..files import read_json
from ..label_names import names_by_values, names_in_list

LEVELS_ABOVE = 2  # from a file to the folder with its dataset.json, such as DATA/labelsTr


def names_of_values(mask: str | Path, *others: str | Path | None) -> Mapping[int, str]:
    """Return the names of a mask's label values, as far as they are known.

    A run writes the names into its masks and into the records beside them. Without these, the names are those of the
    nearest ``dataset.json`` in the folders above one of the files.

    Args:
        mask: NIfTI file.
        others: files of the same case, such as ground truth and images; None is left out.
    """
    recorded = names_by_values(record_beside(Path(mask)).get("classes"))
    if named := read_label_table(Path(mask)) or {values[0]: name for values, name in recorded.items()}:
        return named
    files = [Path(file).absolute() for file in (*others, mask) if file is not None]
    folders = dict.fromkeys(folder for file in files for folder in list(file.parents)[:LEVELS_ABOVE])
    return next((named for folder in folders if (named := names_in_list(folder))), {})


def record_beside(mask: Path) -> dict[str, Any]:
    """Return the record beside a mask, such as ``CASE_seg.json``; empty without one."""
    try:
        record = read_json(mask.with_name(f"{mask.name.partition('.nii')[0]}.json"))
    except InputError:
        return {}
    return record if isinstance(record, dict) else {}
