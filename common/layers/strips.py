"""Compute a level of a network strip by strip along x, which takes less memory and gives the same values.

A part is a pair of voxel indices along x: its first voxel, and the one after its last. A strip of a convolutional level
depends on voxels up to the reach of its convolutions beyond it:

1. :func:`strips_of` divides the axis into strips.
2. :func:`widened` returns the part that a strip depends on, :func:`cut` takes this part out of a map.
3. The level computes the wider part, :func:`trimmed` keeps the strip of the result.
4. :func:`joined` puts the strips together.
"""

from __future__ import annotations

import torch
from torch import Tensor


def strips_of(size: int, thickness: int, training: bool) -> list[tuple[int, int]]:
    """Divide an axis of ``size`` voxels into strips of ``thickness`` voxels; the last one may be thinner.

    There is one strip in training, with gradients and while an exporter traces: batch statistics are those of the
    whole, gradients need every map anyway, and a trace would fix the number of strips.
    """
    if training or torch.is_grad_enabled() or torch.jit.is_tracing():
        return [(0, size)]
    strips: list[tuple[int, int]] = []
    for start in range(0, size, thickness):
        strips.append((start, min(start + thickness, size)))
    return strips


def widened(part: tuple[int, int], reach: int, size: int) -> tuple[int, int]:
    """Widen a part by ``reach`` voxels on either side, within an axis of ``size`` voxels."""
    return max(part[0] - reach, 0), min(part[1] + reach, size)


def cut(x: Tensor, part: tuple[int, int], factor: int = 1) -> Tensor:
    """Cut a part out of a map ``(B, C, x, y, z)`` that is ``factor`` times smaller than the part's axis."""
    return x[:, :, part[0] // factor : part[1] // factor]


def trimmed(x: Tensor, part: tuple[int, int], wider: tuple[int, int], factor: int = 1) -> Tensor:
    """Trim a map ``(B, C, x, y, z)`` of the ``wider`` part, ``factor`` times smaller, to a part within it."""
    return x[:, :, (part[0] - wider[0]) // factor : (part[1] - wider[0]) // factor]


def joined(strips: list[Tensor]) -> Tensor:
    """Join the maps ``(B, C, x, y, z)`` of all strips along x."""
    return strips[0] if len(strips) == 1 else torch.cat(strips, 2)
