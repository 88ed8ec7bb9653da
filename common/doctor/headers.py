"""Read the grid of a scan from its header."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.volumes import read_grid
from ..geometry import grid_difference, turn_onto


class Header(NamedTuple):
    """Hold the grid of a file, as :func:`common.data.volumes.read_volume` returns it.

    Args:
        path: the file.
        shape: voxels along x, y, z.
        channels: number of channels.
        affine: 4x4 affine, voxels to RAS+ millimetres.
    """

    path: Path
    shape: tuple[int, ...]
    channels: int
    affine: np.ndarray


def read_header(path: str | Path) -> Header:
    """Read the grid of a scan without its voxels.

    Raises:
        InputError: the file is missing or damaged, holds no volume, or has no valid affine.
    """
    path = Path(path)
    shape, affine = read_grid(path)
    return Header(path, shape[:3], shape[3] if len(shape) == 4 else 1, affine)


def header_difference(header: Header, onto: Header) -> str:
    """Return how two grids differ after reorientation onto the second; "" if they are the same."""
    voxels, affine = turn_onto(np.broadcast_to(np.uint8(0), header.shape), header.affine, onto.affine)
    return grid_difference(voxels.shape, affine, onto.shape, onto.affine)
