from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms.patches import centred_start, cut_patch, move_inside, patch_box

SHAPE = (7, 5, 4)


def volume() -> torch.Tensor:
    """Return two channels with different values in all voxels, from 1."""
    return torch.arange(1.0, 2 * 7 * 5 * 4 + 1).reshape(2, *SHAPE)


def naive(start: tuple[int, ...], size: tuple[int, ...], fill: float) -> torch.Tensor:
    patch = torch.full((2, *size), fill)
    for place in itertools.product(*map(range, size)):
        x, y, z = (a + p for a, p in zip(start, place))
        if 0 <= x < 7 and 0 <= y < 5 and 0 <= z < 4:
            patch[(slice(None), *place)] = volume()[:, x, y, z]
    return patch


@pytest.mark.parametrize("size", [(3, 2, 4), (1, 1, 1), (9, 2, 6), (7, 5, 4)])
def test_patch_equals_a_voxel_by_voxel_copy(size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        start = tuple(int(rng.integers(1 - s, n)) for s, n in zip(size, SHAPE))
        assert torch.equal(cut_patch(volume(), start, size, fill=-2), naive(start, size, -2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8])
def test_patch_is_a_plain_copy_of_the_type(dtype: torch.dtype) -> None:
    source = MetaTensor(volume().to(dtype))
    for start in ((0, 0, 0), (-1, 2, 3)):
        patch = cut_patch(source, start, SHAPE)
        assert type(patch) is torch.Tensor and patch.dtype == dtype
        patch.fill_(0)
    assert torch.equal(source.as_tensor(), volume().to(dtype))


@pytest.mark.parametrize("start", [(7, 0, 0), (0, -3, 0)])
def test_patch_outside_the_volume_is_refused(start: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"patch of size \[3, 3, 3\] from voxel .* outside the volume of \[7, 5, 4\]"):
        patch_box(start, (3, 3, 3), SHAPE)


def test_centre_of_an_even_patch_is_after_its_middle() -> None:
    assert centred_start((5, 5), (3, 4)) == [4, 3]


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        ((-2, 1, 9), (3, 2, 2), [0, 1, 2]),
        ((4, 3, 0), (3, 2, 4), [4, 3, 0]),
        ((5, 4, 1), (3, 2, 4), [4, 3, 0]),
        ((3, 3, 3), (8, 8, 8), [0, -1, -2]),  # a smaller volume: 0, 1 and 2 voxels before it, 1, 2 and 2 after
    ],
)
def test_patch_moves_into_the_volume(start: tuple[int, ...], size: tuple[int, ...], expected: list[int]) -> None:
    assert move_inside(start, size, SHAPE) == expected
