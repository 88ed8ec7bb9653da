"""What the header of a scan says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.volumes import read_grid


class Header(NamedTuple):
    """The grid of a file, as :func:`common.data.volumes.read_volume` gives it."""

    path: Path
    shape: tuple[int, ...]  # (x, y, z)
    channels: int
    affine: np.ndarray  # 4x4, voxels to RAS+ millimetres


def read_header(path: str | Path) -> Header:
    """Read the grid of a scan; its voxels stay unread.

    Raises:
        InputError: the file is missing, damaged, no volume, or without a valid affine.
    """
    path = Path(path)
    shape, affine = read_grid(path)
    return Header(path, shape[:3], shape[3] if len(shape) == 4 else 1, affine)


def same_grid(one: Header, other: Header, tolerance: float) -> bool:
    """Whether shape and, within ``tolerance``, affine agree."""
    return one.shape == other.shape and bool(np.abs(one.affine - other.affine).max() <= tolerance)
