"""Give each label a colour, and write names and colours of labels for viewers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import nibabel as nib

from ..files import whole_file

ITK_SNAP, SLICER = "labels_itksnap.txt", "labels_slicer.ctbl"
logger = logging.getLogger(__name__)

CODE = 0  # code of the extension, as other tools that write such a table have it; nibabel reads its text
# red, green, blue of the first labels; they differ also for the colour-blind (Okabe and Ito)
COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip


def label_colours(labels: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    """Return red, green and blue, 0 to 255, of each label by its place; the colours repeat after the seventh."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(labels)}


def label_table(labels: Mapping[str, int]) -> nib.nifti1.Nifti1Extension:
    """Return a NIfTI extension with the name and the colour of each value of a label map."""
    rows = "".join(
        f'<Label Key="{labels[name]}" Red="{red / 255:.4f}" Green="{green / 255:.4f}" Blue="{blue / 255:.4f}" '
        f'Alpha="1">{escape(name)}</Label>\n'
        for name, (red, green, blue) in label_colours(labels).items()
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension><VolumeInformation Index="0"><LabelTable>\n'
        f"{rows}</LabelTable><VolumeType>Label</VolumeType></VolumeInformation></CaretExtension>\n"
    )
    return nib.nifti1.Nifti1Extension(CODE, text.encode())


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
