from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from scipy import ndimage

from common.methods.mmfnet import RandCropRotatedPatchd
from common.methods.mmfnet.patches import cut_rotated_patch, window_starts

SIZE = (16, 12, 4)


def region(slices: int = 14) -> dict[str, torch.Tensor]:
    image = torch.rand(3, 40, 36, slices)
    return {"image": image, "label": (image[:1] > 0.5).float()}


@pytest.mark.parametrize("slices", [16, 18, 40, 42])
def test_starts_equal_those_of_monais_sliding_windows(slices: int) -> None:
    seen = []

    def first_slices(windows: torch.Tensor) -> torch.Tensor:
        seen.extend(windows[:, 0, 0, 0, 0].int().tolist())
        return windows

    volume = torch.arange(slices).float().repeat(1, 1, 16, 16, 1)
    SlidingWindowInferer((16, 16, 16), overlap=(0, 0, 0.75))(volume, first_slices)
    assert window_starts(slices, 16, 4) == seen


def test_a_patch_without_rotation_is_a_slice_of_the_volume() -> None:
    volume = region()["image"]
    patch = cut_rotated_patch(volume, (5, 7, 3), SIZE, 0.0, None, "bilinear")
    torch.testing.assert_close(patch, volume[:, 5:21, 7:19, 3:7], atol=1e-4, rtol=0)
    flipped = cut_rotated_patch(volume, (5, 7, 3), SIZE, 0.0, 1, "bilinear")
    torch.testing.assert_close(flipped, patch.flip(2))


def test_rotation_is_in_plane_about_the_patch_centre() -> None:
    volume, angle = region()["image"], math.radians(20)
    patch = cut_rotated_patch(volume, (9, 8, 2), SIZE, angle, None, "bilinear")
    x, y = np.meshgrid(np.arange(16) - 7.5, np.arange(12) - 5.5, indexing="ij")
    at = [9 + 7.5 + math.cos(angle) * x - math.sin(angle) * y, 8 + 5.5 + math.sin(angle) * x + math.cos(angle) * y]
    expected = ndimage.map_coordinates(volume[1, :, :, 5].numpy(), at, order=1)
    np.testing.assert_allclose(patch[1, :, :, 3], expected, atol=1e-4)


def test_label_follows_the_image_and_stays_binary() -> None:
    data = region()
    data["label"] = data["image"][:1].clone()
    straight = RandCropRotatedPatchd(["image", "label"], SIZE, (12, 12, 3), max_offset=(8, 8, 3), max_angle=0.0)
    out = straight.set_random_state(seed=1)(data)
    torch.testing.assert_close(out["image"][:1], out["label"], atol=1e-4, rtol=0)
    turned = RandCropRotatedPatchd(["image", "label"], SIZE, (12, 12, 3), max_angle=30.0)
    rotated = turned.set_random_state(seed=1)(region())
    assert set(rotated["label"].unique().tolist()) == {0, 1}


def test_seed_decides_and_the_source_is_not_written() -> None:
    crop = RandCropRotatedPatchd(["image", "label"], SIZE, (12, 12, 3), max_offset=(8, 8, 3))
    data = region()
    before = {k: v.clone() for k, v in data.items()}
    first, again, other = (crop.set_random_state(seed=s)(data)["image"] for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(data[k], before[k]) for k in data)
    assert first.data_ptr() != data["image"].data_ptr()


def test_draws_cover_their_ranges() -> None:
    crop = RandCropRotatedPatchd("image", SIZE, (12, 12, 2), step=2, max_offset=(8, 8, 4), max_angle=5.0)
    crop.set_random_state(seed=0)
    draws = [crop.randomize(slices=8) for _ in range(500)]
    x, z = ({d["start"][axis] for d in draws} for axis in (0, 2))
    assert (min(x), max(x)) == (12 - 8, 12 + 8)
    assert (min(z), max(z)) == (0, 2 + 4 + 2)  # starts 0, 2, 4 after a margin of 2, which limits the shift to 2
    angles = [d["angle"] for d in draws]
    assert -math.radians(5) <= min(angles) < -math.radians(4) and math.radians(4) < max(angles) <= math.radians(5)
    assert 0.4 < np.mean([d["flip_axis"] == 1 for d in draws]) < 0.6
