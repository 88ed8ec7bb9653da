"""What the header of a scan says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.volumes import read_grid
from ..geometry import grid_difference, turn_onto


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


def difference(header: Header, onto: Header) -> str:
    """Return how the grid of a file differs from another's, the order of its axes aside; "" where they are the same."""
    voxels, affine = turn_onto(np.broadcast_to(np.uint8(0), header.shape), header.affine, onto.affine)
    return grid_difference(voxels.shape, affine, onto.shape, onto.affine)
