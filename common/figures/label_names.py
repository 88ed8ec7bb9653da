"""Find the names of the labels in a mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..data.label_table import read_label_table
from ..label_names import names_in_list

LEVELS_ABOVE = 2  # from a file to the folder with its dataset.json, such as DATA/labelsTr


def names_of_values(mask: str | Path, *others: str | Path | None) -> Mapping[int, str]:
    """Return the names of a mask's label values, as far as they are known.

    The names are those in the mask, as a run writes them. Without them, they are those of the nearest ``dataset.json``
    in the folders above one of the files.

    Args:
        mask: NIfTI file.
        others: files of the same case, such as ground truth and images; None is left out.
    """
    if named := read_label_table(Path(mask)):
        return named
    files = [Path(file).absolute() for file in (*others, mask) if file is not None]
    folders = dict.fromkeys(folder for file in files for folder in list(file.parents)[:LEVELS_ABOVE])
    return next((named for folder in folders if (named := names_in_list(folder))), {})
