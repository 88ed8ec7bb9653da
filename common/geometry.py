"""Where the voxels of a volume lie, and the one rule by which two grids are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nibabel as nib
import numpy as np
from monai.utils import SpaceKeys

from .errors import InputError

SAME_GRID = 0.5  # voxels: up to here the nearest voxel is the same one
AXES = ({"R": 1.0, "L": -1.0}, {"A": 1.0, "P": -1.0}, {"S": 1.0, "I": -1.0})


def grid_difference(
    shape: Sequence[int], affine: np.ndarray, onto_shape: Sequence[int], onto_affine: np.ndarray
) -> str:
    """Return how one grid differs from another, or "" where they are the same.

    They are the same if they have as many voxels, and if no corner voxel of one lies more than half a voxel, along any
    axis, from that of the other.

    Args:
        shape: sizes of the grid, ``(x, y, z)``.
        affine: its 4x4 to millimetres.
        onto_shape: sizes of the other grid, which counts the voxels.
        onto_affine: its 4x4 to millimetres.
    """
    if tuple(shape) != tuple(onto_shape):
        return f"shape {list(shape)}, expected {list(onto_shape)}"
    corners = np.stack([*np.meshgrid(*((0.0, n - 1.0) for n in shape), indexing="ij"), np.ones((2, 2, 2))])
    apart = (affine - onto_affine) @ corners.reshape(4, -1)
    voxels = float(np.abs(np.linalg.solve(onto_affine, apart)).max())
    if voxels <= SAME_GRID:
        return ""
    millimetres = float(np.linalg.norm(apart[:3], axis=0).max())
    return f"a corner lies {millimetres:.3g} mm ({voxels:.3g} voxels) away, expected at most {SAME_GRID} voxels"


def same_grid(shape: Sequence[int], affine: np.ndarray, onto_shape: Sequence[int], onto_affine: np.ndarray) -> bool:
    """Return whether two grids are the same, see :func:`grid_difference`."""
    return not grid_difference(shape, affine, onto_shape, onto_affine)


def turn_onto(volume: np.ndarray, affine: np.ndarray, onto_affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume with its axes in the order and the directions of another grid, and its affine then.

    No voxel changes its value or its place; where the axes are so already, the volume is returned as it is.

    Args:
        volume: ``(x, y, z)``, further axes after these stay.
        affine: its 4x4 to millimetres.
        onto_affine: 4x4 of the other grid.
    """
    axes = nib.orientations.io_orientation(np.linalg.solve(onto_affine, affine))
    if np.array_equal(axes, [[0, 1], [1, 1], [2, 1]]):
        return volume, affine
    turned = nib.orientations.apply_orientation(volume, axes)
    return turned, affine @ nib.orientations.inv_ornt_aff(axes, volume.shape[:3])


def to_ras(meta: Mapping, name: str) -> np.ndarray:
    """Return the 4x4 matrix to RAS+ from the coordinate system that a volume's affine is in.

    Args:
        meta: the volume's metadata. Its ``space`` is ``"RAS"``, ``"LPS"`` or another of these codes, or NRRD's words,
            such as ``"left-posterior-superior"``; without one, RAS as in MONAI.
        name: name of the volume, for the message.

    Raises:
        InputError: another coordinate system.
    """
    space = meta.get("space", SpaceKeys.RAS)
    words = str(space).split("-") if "-" in str(space) else list(str(space))
    letters = [word[:1].upper() for word in words]
    if len(letters) != 3 or any(letter not in axis for letter, axis in zip(letters, AXES)):
        raise InputError(
            f"{name}: its space is {str(space)!r}, expected 'RAS' or 'LPS'; convert its affine to RAS and set its "
            "metadata's space to 'RAS'"
        )
    return np.diag([*(axis[letter] for letter, axis in zip(letters, AXES)), 1.0])
