"""Cut patches of volumes: where a patch begins, which voxels it takes, and what fills the rest.

A patch is a box of a fixed size, cut for training or around one place of a test scan. It may reach out of the volume.
Random transforms draw a place and call these functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..tensors import as_tensor


def centred_start(centre: Sequence[int], size: Sequence[int]) -> list[int]:
    """Return the first voxel of the patch around ``centre``, which is the voxel after the middle if a size is even."""
    return [c - n // 2 for c, n in zip(centre, size)]


def move_inside(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Return the start of a patch after moving it into the volume.

    Along an axis on which the volume is smaller than the patch, the volume comes to lie in the patch's middle.

    Args:
        start: first voxel of the patch.
        size: voxels of the patch along each axis.
        shape: voxels of the volume along each axis.
    """
    return [min(max(a, 0), n - s) if s <= n else -((s - n) // 2) for a, s, n in zip(start, size, shape)]


def patch_box(
    start: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[list[slice], list[tuple[int, int]]]:
    """Return the part of a patch that lies in the volume, and the voxels that lie before and after the volume.

    Args:
        start: first voxel of the patch; may lie outside the volume.
        size: voxels of the patch along each axis.
        shape: voxels of the volume along each axis.

    Raises:
        ValueError: the patch does not touch the volume.
    """
    inside = [slice(max(int(a), 0), min(int(a + s), int(n))) for a, s, n in zip(start, size, shape)]
    if any(box.start >= box.stop for box in inside):
        raise ValueError(
            f"patch of size {list(size)} from voxel {list(start)}: it lies outside the volume of {list(shape)} voxels"
        )
    outside = [(int(box.start - a), int(a + s - box.stop)) for a, s, box in zip(start, size, inside)]
    return inside, outside


def cut_patch(volume: Tensor, start: Sequence[int], size: Sequence[int], fill: float = 0.0) -> Tensor:
    """Cut a patch out of a volume.

    Args:
        volume: ``(C, x, y, z)``.
        start: first voxel of the patch along x, y, z; may lie outside the volume.
        size: voxels of the patch along x, y, z.
        fill: value of the voxels outside the volume.

    Returns:
        copy ``(C, *size)`` of the volume's type, a plain tensor.

    Raises:
        ValueError: the patch does not touch the volume.
    """
    inside, outside = patch_box(start, size, volume.shape[1:])
    patch = as_tensor(volume)[(slice(None), *inside)]
    padding = [voxels for pair in reversed(outside) for voxels in pair]  # `pad` takes the last axis first
    return F.pad(patch, padding, value=fill) if any(padding) else patch.clone()
