"""Read the names of labels and regions in the description of a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json

BACKGROUND = "background"
IGNORE = "ignore"  # name of nnU-Net for voxels without annotation
SPELLINGS = {"tumor": "tumour", "tumors": "tumour", "tumours": "tumour", "cancer": "tumour", "edema": "oedema"}


def names_by_values(named: Any) -> dict[tuple[int, ...], str]:
    """Return the names in ``labels`` of a ``dataset.json`` by the values in their label maps.

    Args:
        named: object that maps values to names (Decathlon), names to values or to lists of values (nnU-Net v2; the
            lists are regions), or a list of names. Entries of another form are left out.

    Returns:
        mapping from values in ascending order to names, background included; the first name of equal values.
    """
    if isinstance(named, list):
        named = dict(enumerate(named))
    found: dict[tuple[int, ...], str] = {}
    for key, entry in named.items() if isinstance(named, dict) else ():
        for values, name in ((key, entry), (entry, key)):
            if (whole := _integers(values)) and isinstance(name, str) and name_words(name):
                found.setdefault(whole, name)
                break
    return found


def names_in_list(dataset_dir: str | Path) -> dict[int, str]:
    """Return the label values and names of ``dataset_dir/dataset.json``, without background and regions.

    Without a valid file the result is empty; an error in the file is reported where the cases are read.
    """
    return {values[0]: name for values, name in _foreground(dataset_dir).items() if len(values) == 1}


def regions_in_list(dataset_dir: str | Path) -> dict[str, list[int]]:
    """Return nnU-Net's regions in ``dataset_dir/dataset.json``, by name; empty if every label has one value."""
    found = _foreground(dataset_dir)
    several = any(len(values) > 1 for values in found)
    return {name: list(values) for values, name in found.items()} if several else {}


def name_words(name: str) -> set[str]:
    """Return the words of a name in one spelling, for comparisons."""
    return {SPELLINGS.get(word, word) for word in re.split(r"[\s_,;/]+", name.strip().lower()) if word}


def as_integer(value: Any) -> int | None:
    """Return a whole number, which may be text as in the keys of JSON, or None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value)


def _foreground(dataset_dir: str | Path) -> dict[tuple[int, ...], str]:
    try:
        listing = read_json(Path(dataset_dir) / "dataset.json")
    except InputError:
        return {}
    found = names_by_values(listing.get("labels")) if isinstance(listing, dict) else {}
    return {values: name for values, name in found.items() if values != (0,) and name_words(name) != {BACKGROUND}}


def _integers(values: Any) -> tuple[int, ...]:
    """Return the whole numbers of a value or of a list of values in ascending order, or an empty tuple."""
    several = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    whole = [as_integer(value) for value in several]
    return tuple(sorted(value for value in whole if value is not None)) if None not in whole else ()
