"""Write names and colours of labels for viewers that do not read them in the header of a label map."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data.label_table import label_colours
from ..files import whole_file

ITK_SNAP, SLICER = "labels_itksnap.txt", "labels_slicer.ctbl"
logger = logging.getLogger(__name__)


def write_colours(labels: Mapping[str, int], folder: Path) -> None:
    """Write names and colours of labels as a label description of ITK-SNAP and as a colour table of 3D Slicer.

    A file that is there already stays, since a user may have changed its colours. If it lacks one of the labels, a
    warning says so.
    """
    rows = [(labels[name], name, colour) for name, colour in label_colours(labels).items()]
    itk_snap = ["# ITK-SnAP Label Description File", "# IDX -R- -G- -B- -A- VIS MSH LABEL"]
    itk_snap += ['0 0 0 0 0 0 0 "Clear Label"']
    itk_snap += [f'{value} {red} {green} {blue} 1 1 1 "{name}"' for value, name, (red, green, blue) in rows]
    slicer = ["# Color table file", "0 background 0 0 0 0"]  # blanks separate its columns, so a name has none
    slicer += [f"{value} {'_'.join(name.split())} {red} {green} {blue} 255" for value, name, (red, green, blue) in rows]
    for file, lines in ((folder / ITK_SNAP, itk_snap), (folder / SLICER, slicer)):
        if not file.exists():
            with whole_file(file) as partial:
                partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif not _names_in(lines) <= _names_in(file.read_text(encoding="utf-8", errors="replace").splitlines()):
            logger.warning("%s: lacks labels of these masks, so a viewer shows other names; move the file away", file)


def _names_in(lines: Sequence[str]) -> set[tuple[str, str]]:
    """Return value and name of each line of a colour file, where the name is the second column or the eighth."""
    rows = [line.split(maxsplit=7) for line in lines if line[:1].isdigit()]
    return {(row[0], row[7] if len(row) > 7 else row[1]) for row in rows if len(row) > 1}
