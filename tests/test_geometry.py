from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from common.errors import InputError
from common.geometry import check_voxel_size, grid_difference, same_grid, to_ras, turn_onto

SHAPE = (11, 9, 7)
AFFINE = np.array([[0.72, -0.35, 0, -32], [0.21, 1.2, 0, 3], [0, 0, 3, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shift", [0.49, -0.49, 0.51, -0.51])
def test_half_a_voxel_along_any_axis_is_the_limit(axis: int, shift: float) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += shift * AFFINE[:3, axis]
    assert same_grid(SHAPE, moved, SHAPE, AFFINE) == (abs(shift) < 0.5)


@pytest.mark.parametrize("axis", range(3))
def test_the_far_corner_counts(axis: int) -> None:
    scale = np.ones(4)
    scale[axis] += 0.6 / (SHAPE[axis] - 1)
    millimetres = 0.6 * np.linalg.norm(AFFINE[:3, axis])
    expected = f"a corner lies {millimetres:.3g} mm (0.6 voxels) away, expected at most 0.5 voxels"
    assert grid_difference(SHAPE, AFFINE @ np.diag(scale), SHAPE, AFFINE) == expected


def test_grids_of_different_shapes_differ() -> None:
    assert grid_difference((11, 9, 6), AFFINE, SHAPE, AFFINE) == "shape [11, 9, 6], expected [11, 9, 7]"


def test_turning_axes_keeps_positions_and_values() -> None:
    volume = np.random.default_rng(0).random((*SHAPE, 2))
    other = AFFINE[:, [2, 0, 1, 3]] @ np.diag([-1, 1, -1, 1])
    turned, affine = turn_onto(volume, AFFINE, other)
    assert turned.shape == (7, 11, 9, 2)
    for place in ((0, 0, 0), (6, 3, 2), (1, 10, 8)):
        there = nib.affines.apply_affine(np.linalg.inv(AFFINE) @ affine, place).round().astype(int)
        np.testing.assert_array_equal(turned[place], volume[tuple(there)])
    same, unchanged = turn_onto(volume, AFFINE, AFFINE)
    assert same is volume and unchanged is AFFINE


def test_the_matrix_to_ras_follows_the_space() -> None:
    np.testing.assert_array_equal(np.diag(to_ras({"space": "LPS"}, "P1")), [-1, -1, 1, 1])
    np.testing.assert_array_equal(np.diag(to_ras({"space": "right-posterior-inferior"}, "P1")), [1, -1, -1, 1])
    np.testing.assert_array_equal(to_ras({}, "P1"), np.eye(4))
    with pytest.raises(InputError, match="P1: its space is 'scanner-xyz', expected 'RAS' or 'LPS'; convert its affine"):
        to_ras({"space": "scanner-xyz"}, "P1")


def test_voxel_sizes_outside_those_of_scanners_are_refused() -> None:
    for spacing in ((0.01, 0.5, 100), (100, 0.01, 5)):
        check_voxel_size(np.diag([*spacing, 1.0]), "P1")
    for spacing in ((0.0099, 0.5, 5), (0.5, 4000, 5), (0.5, 0.5, np.nan)):
        with pytest.raises(InputError, match=r"P1: voxels of .* mm, expected 0\.01 to 100 mm .*; correct the spacing"):
            check_voxel_size(np.diag([*spacing, 1.0]), "P1")
