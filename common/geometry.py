"""Compare the grids of volumes by one rule, and turn volumes onto other axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nibabel as nib
import numpy as np
from monai.utils import SpaceKeys

from .errors import InputError

SAME_GRID = 0.5  # largest distance of two corners, in voxels; up to here, the nearest voxel is the same one
VOXEL_MM = (0.01, 100.0)  # no scanner of people makes smaller or larger voxels, the gaps of a localizer included
AXES = ({"R": 1.0, "L": -1.0}, {"A": 1.0, "P": -1.0}, {"S": 1.0, "I": -1.0})


def grid_difference(
    shape: Sequence[int], affine: np.ndarray, onto_shape: Sequence[int], onto_affine: np.ndarray
) -> str:
    """Return how one grid differs from another, or "" if they are the same.

    Two grids are the same if their shapes are equal and no two corresponding corner voxels are more than half a voxel
    apart along any axis.

    Args:
        shape: shape ``(x, y, z)`` of the grid, in voxels.
        affine: 4x4 affine of the grid, voxels to millimetres.
        onto_shape: shape of the other grid, in voxels.
        onto_affine: 4x4 affine of the other grid; distances are counted in its voxels.
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
    """Return a volume with its axes in the order and the directions of another grid, and its new affine.

    No voxel changes its value or its position in space. If the axes agree already, the volume itself is returned.

    Args:
        volume: array ``(x, y, z)``; further axes after these stay.
        affine: 4x4 affine of the volume, voxels to millimetres.
        onto_affine: 4x4 affine of the other grid.
    """
    axes = nib.orientations.io_orientation(np.linalg.solve(onto_affine, affine))
    if np.array_equal(axes, [[0, 1], [1, 1], [2, 1]]):
        return volume, affine
    turned = nib.orientations.apply_orientation(volume, axes)
    return turned, affine @ nib.orientations.inv_ornt_aff(axes, volume.shape[:3])


def to_ras(meta: Mapping, name: str) -> np.ndarray:
    """Return the 4x4 matrix from the coordinate system of a volume's affine to RAS+.

    Args:
        meta: metadata of the volume. Its ``space`` is a code such as ``"RAS"`` or ``"LPS"``, or NRRD's words, such as
            ``"left-posterior-superior"``. Without ``space``, it is RAS, as in MONAI.
        name: name of the volume, for the message.

    Raises:
        InputError: the coordinate system is unknown.
    """
    space = meta.get("space", SpaceKeys.RAS)
    words = str(space).split("-") if "-" in str(space) else list(str(space))
    letters = [word[:1].upper() for word in words]
    if len(letters) != 3 or any(letter not in axis for letter, axis in zip(letters, AXES)):
        raise InputError(
            f"{name}: its space is {str(space)!r}, expected 'RAS' or 'LPS'; convert its affine to RAS and set 'space' "
            "in its metadata to 'RAS'"
        )
    return np.diag([*(axis[letter] for letter, axis in zip(letters, AXES)), 1.0])


def check_voxel_size(affine: np.ndarray, name: str) -> None:
    """Check that a scanner can have made voxels of this size.

    Args:
        affine: 4x4 affine of the volume, voxels to millimetres.
        name: name of the volume, for the message.

    Raises:
        InputError: a side of the voxels is outside :data:`VOXEL_MM`, as after a mistake of the unit.
    """
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = VOXEL_MM
    if not ((low <= sides) & (sides <= high)).all():
        raise InputError(
            f"{name}: voxels of {' x '.join(f'{side:.4g}' for side in sides)} mm, expected {low:g} to {high:g} mm as "
            "scanners have; correct the spacing in the header, which is in mm"
        )
