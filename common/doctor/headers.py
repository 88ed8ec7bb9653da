"""What the header of a scan says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ..data.volumes import DAMAGED, NIFTI_SUFFIXES, check_grid, read_volume
from ..errors import InputError
from ..geometry import grid_difference, turn_onto


class Header(NamedTuple):
    """The grid of a file, as :func:`common.data.volumes.read_volume` gives it."""

    path: Path
    shape: tuple[int, ...]  # (x, y, z)
    channels: int
    affine: np.ndarray  # 4x4, voxels to RAS+ millimetres


def read_header(path: str | Path) -> Header:
    """Read the grid of a scan.

    Of NIfTI the header is read; other formats have theirs spread over files, and are read whole.

    Raises:
        InputError: the file is missing, damaged, no volume, or without a valid affine.
    """
    path = Path(path)
    if path.exists() and path.name.lower().endswith(NIFTI_SUFFIXES):
        try:
            image = nib.load(path)
            shape, affine = tuple(int(n) for n in image.shape), np.asarray(image.affine, dtype=np.float64)
        except DAMAGED as error:
            raise InputError(f"{path}: not a NIfTI file ({str(error).partition(chr(10))[0]})") from error
        while len(shape) > 3 and shape[3] == 1:
            shape = (*shape[:3], *shape[4:])
    else:
        array, affine = read_volume(path)
        shape = array.shape
    check_grid(path, shape, affine)
    return Header(path, shape[:3], shape[3] if len(shape) == 4 else 1, affine)


def difference(header: Header, onto: Header) -> str:
    """Return how the grid of a file differs from another's, the order of its axes aside; "" where they are the same."""
    voxels, affine = turn_onto(np.broadcast_to(np.uint8(0), header.shape), header.affine, onto.affine)
    return grid_difference(voxels.shape, affine, onto.shape, onto.affine)
