"""Decode the pixels that ITK does not: frames of enhanced images, and some compressed transfer syntaxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, first_line, is_out_of_memory
from .dicom_headers import DAMAGED, Slice, pydicom

# Compressed transfer syntaxes that ITK's decoder GDCM reads: JPEG, JPEG-LS, JPEG 2000 and RLE.
READ_BY_ITK = frozenset(
    f"1.2.840.10008.1.2.{end}"
    for end in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.92", "4.93", "5")
)


def needs_pydicom(one: Slice) -> bool:
    """Return whether ITK cannot decode the pixels of a slice as they are."""
    return one.frame is not None or not one.marked or not _is_read_by_itk(one.syntax)


def check_decoder(one: Slice) -> None:
    """Check that the pixels of a slice can be decoded with the packages that are installed.

    Raises:
        InputError: no package can; the message names the transfer syntax and the packages that can.
    """
    syntax = pydicom.uid.UID(one.syntax)
    if not needs_pydicom(one) or not syntax.is_compressed:
        return
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is not None and decoder.is_available:
        return
    with_package = "no installed package decodes; export the series uncompressed (Explicit VR Little Endian)"
    if decoder is not None:
        packages = " or ".join(text.partition("requires ")[2] for text in decoder.missing_dependencies)
        with_package = f"itk does not decode; install {packages}, or export the series uncompressed"
    raise InputError(f"{one.path}: transfer syntax {syntax.name} ({syntax}), which {with_package}")


def decode(slices: Sequence[Slice], folder: Path) -> np.ndarray:
    """Decode slices or frames with pydicom as a float32 array ``(x, y, z)``, rescaled by slope and intercept.

    Args:
        slices: slices in their order along z; all have the same size.
        folder: folder of the series, for messages.

    Raises:
        InputError: the pixels cannot be decoded, or do not fit into memory.
    """
    (columns, rows), count = slices[0].size[:2], len(slices)
    array = np.empty((columns, rows, count), np.float32)
    try:
        for path in dict.fromkeys(one.path for one in slices):
            pixels = pydicom.dcmread(path, force=True).pixel_array
            for k, one in enumerate(slices):
                if one.path == path:
                    frame = pixels if one.frame is None or pixels.ndim == 2 else pixels[one.frame]
                    array[:, :, k] = frame.T * np.float32(one.slope) + np.float32(one.intercept)
    except (*DAMAGED, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{folder}: reading {columns} x {rows} x {count} voxels needs more memory than available; use a "
                "machine with more memory"
            ) from error
        raise InputError(
            f"{folder}: its images cannot be decoded ({first_line(error)}); copy them again, or convert them to NIfTI"
        ) from error
    return array


def _is_read_by_itk(syntax: str) -> bool:
    uid = pydicom.uid.UID(syntax)
    known = not uid.is_private and uid.is_transfer_syntax
    return syntax in READ_BY_ITK or not (known and uid.is_encapsulated)
