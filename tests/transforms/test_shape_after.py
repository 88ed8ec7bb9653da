"""Compare the predicted shape of a resampled scan with the real one."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from common.transforms import ResampleAxesd

RESAMPLINGS: dict[str, dict[str, Any]] = {
    "finer": {"pixdim": (0.41, 0.73, 1.25)},
    "coarser": {"pixdim": (2.3, 1.9, 5.3)},
    "half": {"pixdim": (1, 1.6, 10)},
    "as it is": {},
    "slices alone": {"pixdim": (-1, -1, 1)},
    "in plane": {"pixdim": (-1, -1, 1.7), "in_plane": 12},
    "other axes": {"axcodes": "SAR", "pixdim": (4, 0.5, 0.7)},
}


def volume(shape: tuple[int, ...], affine: np.ndarray) -> MetaTensor:
    values = torch.from_numpy(np.random.default_rng(0).random((1, *shape), np.float32))
    return MetaTensor(values, affine=affine, meta={"original_affine": affine})


def scans(count: int, seed: int = 0) -> list[tuple[tuple[int, ...], tuple[float, ...], np.ndarray]]:
    """Return shape and spacing along the body's axes, and an affine whose axes are permuted, flipped and rotated."""
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        shape, spacing = tuple(rng.integers(2, 24, 3).tolist()), tuple(rng.choice([0.5, 0.8, 5.0, 1.3], 3).tolist())
        turn = Rotation.from_euler("xyz", rng.uniform(-20, 20, 3) * (number % 2), degrees=True).as_matrix()
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(turn).reshape(3, 3) @ np.diag(spacing * rng.choice([-1, 1], 3))
        found.append((shape, spacing, affine.astype(np.float32).astype(np.float64)))
    return found


@pytest.mark.parametrize("options", RESAMPLINGS.values(), ids=RESAMPLINGS)
def test_resampling_predicts_its_shape(options: dict[str, Any]) -> None:
    resample = ResampleAxesd("image", **options)
    for (shape, spacing, affine), order in zip(scans(60), [*permutations(range(3))] * 10):
        image = volume(tuple(shape[i] for i in order), affine[:, [*order, 3]])
        real = resample({"image": image})["image"]
        found, new_spacing = resample.shape_after(shape, spacing)
        difference = np.subtract(found, real.shape[1:])
        assert ((difference == 0) | (difference == 1)).all()
        np.testing.assert_allclose(new_spacing, real.pixdim, rtol=1e-5)


def test_half_a_voxel_counts_as_a_whole_one() -> None:
    """An extent of 256.5 voxels becomes 256 or 257 voxels, by rounding errors of the affine."""
    resample = ResampleAxesd("image", pixdim=(2, 2, 2))
    assert resample.shape_after((2, 2, 512), (1, 1, 1)) == ((2, 2, 257), pytest.approx((2, 2, 2)))
