"""Read the table of names in the header of a label map."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib


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
