"""Cut a tile into windows, over which cross-task guided attention takes its statistics, and join them again."""

from __future__ import annotations

from torch import Tensor, nn


def cut_into_windows(tile: Tensor, window: list[int]) -> Tensor:
    """Cut a tile into windows, stacked in the batch.

    Zeros, which add nothing to a sum of features, fill up the last window of each axis.

    Args:
        tile: ``(B, C, x, y, z)``.
        window: voxels (x, y, z) of a window.

    Returns:
        ``(B * windows, C, *window)``.
    """
    counts = [(tile.shape[2 + i] + window[i] - 1) // window[i] for i in range(3)]
    pad: list[int] = []
    for axis in (2, 1, 0):
        pad += [0, counts[axis] * window[axis] - tile.shape[2 + axis]]
    windows = nn.functional.pad(tile, pad)
    for axis in (2, 1, 0):
        windows = windows.unflatten(2 + axis, [counts[axis], window[axis]])
    return windows.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(0, 3)


def join_windows(windows: Tensor, size: list[int]) -> Tensor:
    """Join the windows that :func:`cut_into_windows` made to a tile ``(B, C, *size)``."""
    counts = [(size[i] + windows.shape[2 + i] - 1) // windows.shape[2 + i] for i in range(3)]
    tile = windows.unflatten(0, [-1, counts[0], counts[1], counts[2]]).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return tile.flatten(6, 7).flatten(4, 5).flatten(2, 3)[:, :, : size[0], : size[1], : size[2]]
