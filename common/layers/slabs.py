"""Compute a level of a network slab by slab along x, which takes less memory and gives the same values.

A part is a pair of voxel indices along x: its first voxel, and the one after its last. A slab of a convolutional level
depends on voxels up to the reach of its convolutions beyond it:

1. :func:`slabs_of` divides the axis into slabs.
2. :func:`widened` returns the part that a slab depends on, :func:`cut` takes this part out of a map.
3. The level computes the wider part, :func:`trimmed` keeps the slab of the result.
4. :func:`joined` puts the slabs together.
"""

from __future__ import annotations

import torch
from torch import Tensor


def slabs_of(size: int, thickness: int, training: bool) -> list[tuple[int, int]]:
    """Divide an axis of ``size`` voxels into slabs of ``thickness`` voxels; the last one may be thinner.

    There is one slab in training, with gradients and while an exporter traces: batch statistics are those of the whole,
    gradients need every map anyway, and a trace would fix the number of slabs.
    """
    if training or torch.is_grad_enabled() or torch.jit.is_tracing():
        return [(0, size)]
    slabs: list[tuple[int, int]] = []
    for start in range(0, size, thickness):
        slabs.append((start, min(start + thickness, size)))
    return slabs


def widened(part: tuple[int, int], reach: int, size: int) -> tuple[int, int]:
    """Widen a part by ``reach`` voxels on either side, within an axis of ``size`` voxels."""
    return max(part[0] - reach, 0), min(part[1] + reach, size)


def cut(x: Tensor, part: tuple[int, int], factor: int = 1) -> Tensor:
    """Cut a part out of a map ``(B, C, x, y, z)`` that is ``factor`` times smaller than the part's axis."""
    return x[:, :, part[0] // factor : part[1] // factor]


def trimmed(x: Tensor, part: tuple[int, int], wider: tuple[int, int], factor: int = 1) -> Tensor:
    """Trim a map ``(B, C, x, y, z)`` of the ``wider`` part, ``factor`` times smaller, to a part within it."""
    return x[:, :, (part[0] - wider[0]) // factor : (part[1] - wider[0]) // factor]


def joined(slabs: list[Tensor]) -> Tensor:
    """Join the maps ``(B, C, x, y, z)`` of all slabs along x."""
    return slabs[0] if len(slabs) == 1 else torch.cat(slabs, 2)
