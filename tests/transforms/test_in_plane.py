"""Check resampling to a number of voxels in plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms import ResampleAxesd, ReturnToScand

from .scans import LPS, SHAPE, SHEARED, TURNED, field, scan

IN_PLANE = {
    "half": ((16, 16, 5), (8, 8), (1.4, 1.4)),
    "a shorter side": ((16, 12, 5), (8, 6), (1.4, 1.4)),
    "the other side": ((10, 16, 5), (5, 8), (1.4, 1.4)),
    "not whole": ((16, 13, 5), (8, 7), (1.4, 1.4)),
    "finer": ((4, 3, 5), (8, 6), (0.35, 0.35)),
}


@pytest.mark.parametrize("turn", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 1, 1]), TURNED @ np.linalg.inv(LPS)])
@pytest.mark.parametrize(("shape", "expected", "size"), IN_PLANE.values(), ids=IN_PLANE)
def test_the_longer_side_has_in_plane_voxels(
    turn: np.ndarray, shape: tuple[int, ...], expected: tuple[int, ...], size: tuple[float, ...]
) -> None:
    affine = turn @ np.diag([0.7, 0.7, 2.5, 1])
    image = scan(affine, shape, channels=1)
    found = ResampleAxesd("image", pixdim=(-1, -1, 1), in_plane=8)({"image": image})["image"]
    assert tuple(found.shape[1:3]) == expected and found.shape[3] == 11
    np.testing.assert_allclose(found.pixdim, (*size, 1), atol=1e-9)
    middle, new_middle = ([*((np.array(s) - 1) / 2), 1] for s in (shape, found.shape[1:]))
    np.testing.assert_allclose(found.affine.numpy() @ new_middle, affine @ middle, atol=1e-9)  # the same field of view
    ones = torch.ones(1, *found.shape[1:])
    back = ReturnToScand("pred")({"image": found, "pred": ones})["pred"]
    assert back.shape == image.shape and back.all()


@pytest.mark.parametrize("spacing", [0.7, 0.703125, 0.976562, 0.5 + 1e-7, 0.82])
def test_512_voxels_become_256_at_any_spacing(spacing: float) -> None:
    affine = np.diag([-spacing, -spacing * (1 + 1e-7), 5, 1])
    image = MetaTensor(torch.zeros(1, 512, 512, 2), affine=affine, meta={"original_affine": affine})
    assert ResampleAxesd("image", in_plane=256)({"image": image})["image"].shape == (1, 256, 256, 2)


def test_halving_averages_four_voxels() -> None:
    image = scan(np.diag([0.8, 0.8, 5, 1]), (16, 12, 5))
    found = ResampleAxesd("image", in_plane=8)({"image": image})["image"]
    expected = image.as_tensor().unflatten(1, (8, 2)).unflatten(3, (6, 2)).mean((2, 4))
    torch.testing.assert_close(found.as_tensor(), expected)


def test_inverse_resampling_keeps_positions() -> None:
    image = scan(np.diag([-0.8, 0.8, 2.5, 1]), (64, 64, 9), channels=1)
    image[:] = field(1, (64, 64, 9), smooth=4)
    found = ResampleAxesd("image", pixdim=(-1, -1, 1), in_plane=32)({"image": image})["image"]
    back = ReturnToScand("pred", threshold=0)({"image": found, "pred": found})["pred"]
    drawn = image.as_tensor() >= 0
    away = image.as_tensor().abs() > 0.15
    assert away.float().mean() > 0.8 and torch.equal(back.as_tensor().bool()[away], drawn[away])


def test_all_of_a_sheared_scan_is_on_the_grid() -> None:
    found = ResampleAxesd("image", pixdim=(-1, -1, 1), in_plane=11)({"image": scan(SHEARED)})["image"]
    np.testing.assert_allclose(found.pixdim, (22 * 0.9 / 11, 22 * 0.9 / 11, 1), atol=1e-6)
    corners = np.stack(np.meshgrid(*((0, n - 1) for n in SHAPE), (1,), indexing="ij")).reshape(4, -1)
    there = (np.linalg.inv(found.affine.numpy()) @ SHEARED @ corners)[:3]
    assert there.min() > -0.51 and (there.max(1) < np.array(found.shape[1:]) - 0.49).all()


def test_in_plane_and_pixdim_in_plane_are_refused() -> None:
    with pytest.raises(ValueError, match=r"in_plane=8 and pixdim=\(1, -1, 1\): expected -1, -1 and a slice thickness"):
        ResampleAxesd("image", pixdim=(1, -1, 1), in_plane=8)
