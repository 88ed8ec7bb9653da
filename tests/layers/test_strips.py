from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.layers.strips import cut, joined, strips_of, trimmed, widened


def in_strips(encode: nn.Module, decode: nn.Module, image: Tensor, strips: list[tuple[int, int]]) -> Tensor:
    """Run two 3x3x3 convolutions over strips; the second sees their sum with a map of half the size."""
    size, half = image.shape[2], image[:, :, ::2]
    parts = []
    for strip in strips:
        near = widened(strip, 2, size)
        far = widened(near, 2, size)
        skip = trimmed(encode(cut(image, far)), near, far)
        up = cut(half, near, 2).repeat_interleave(2, dim=2)
        parts.append(trimmed(decode(skip + up), strip, near))
    return joined(parts)


@pytest.mark.parametrize("size", [8, 16, 22])  # one strip, whole strips, a thinner last one
def test_strips_give_the_values_of_the_whole(size: int) -> None:
    encode, decode = (nn.Conv3d(1, 1, kernel_size=3, padding=1) for _ in range(2))
    image = torch.randn(2, 1, size, 3, 4)
    with torch.no_grad():
        strips = strips_of(size, 8, training=False)
        assert [start for start, _ in strips] == list(range(0, size, 8)) and strips[-1][1] == size
        found, whole = (in_strips(encode, decode, image, parts) for parts in (strips, [(0, size)]))
    torch.testing.assert_close(found, whole)


def test_training_and_gradients_take_one_strip() -> None:
    assert strips_of(100, 8, training=False) == [(0, 100)]
    with torch.no_grad():
        assert strips_of(100, 8, training=True) == [(0, 100)]


def test_trimmed_map_of_half_the_size() -> None:
    x = torch.arange(10.0).view(1, 1, 10, 1, 1)  # voxels 4 to 24 at half the size
    assert trimmed(x, (8, 16), (4, 24), 2).flatten().tolist() == [2, 3, 4, 5]
