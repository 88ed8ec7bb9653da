"""Write names and colours of labels into the header of a label map, and read the names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import nibabel as nib

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


def read_label_table(path: Path) -> dict[int, str]:
    """Return the names of the label values in an extension ``LabelTable`` of a NIfTI file, in XML.

    A file of another format, or without a valid table, gives no names.
    """
    try:
        extensions = nib.load(path).header.extensions
    except (OSError, nib.filebasedimages.ImageFileError, AttributeError):  # an unknown format, or one without them
        return {}
    for extension in extensions:
        try:
            table = ElementTree.fromstring(extension.text)
            return {int(label.attrib["Key"]): label.text for label in table.iter("Label") if label.text}
        except (ValueError, KeyError, ElementTree.ParseError):  # another program's extension
            continue
    return {}
