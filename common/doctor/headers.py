"""What the header of a scan says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from ..data.volumes import DAMAGED, NIFTI_SUFFIXES, read_volume
from ..errors import InputError


class Header(NamedTuple):
    """The grid of a file, as :func:`common.data.volumes.read_volume` gives it."""

    path: Path
    shape: tuple[int, ...]  # (x, y, z)
    channels: int
    affine: np.ndarray  # 4x4, voxels to RAS+ millimetres


def read_header(path: str | Path) -> Header:
    """The grid of a scan. Of NIfTI the header is read; other formats have theirs spread over files, and are read whole.

    Raises:
        InputError: the file is missing, damaged, or no volume.
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
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise InputError(f"{path}: shape {shape}, expected a volume with at least 2 voxels along each of 3 axes")
    return Header(path, shape[:3], shape[3] if len(shape) == 4 else 1, affine)


def same_grid(one: Header, other: Header, tolerance: float) -> bool:
    """Whether shape and, within ``tolerance``, affine agree."""
    return one.shape == other.shape and bool(np.abs(one.affine - other.affine).max() <= tolerance)


def overlap(one: Header, other: Header) -> float:
    """The part, 0 to 1, of the first grid that lies in the second, from 16 points along each axis."""
    steps = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 16) for n in one.shape), indexing="ij")).reshape(3, -1)
    there = np.linalg.solve(other.affine, one.affine) @ np.vstack([steps, np.ones(steps.shape[1])])
    inside = [(there[i] >= -0.5) & (there[i] <= other.shape[i] - 0.5) for i in range(3)]
    return float(np.all(inside, axis=0).mean())
