"""Random training windows of anisotropic volumes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from ...tensors import as_tensor


def window_starts(slices: int, size: int, step: int) -> list[int]:
    """First slices of windows of ``size`` every ``step`` slices, the last one flush with the end."""
    return [*range(0, max(slices - size, 0), step), max(slices - size, 0)]


def cut_window(
    volume: Tensor, start: Sequence[int], size: Sequence[int], angle: float, flip_axis: int | None, mode: str
) -> Tensor:
    """One window, rotated within the slice around its centre, in a single resampling of the window alone.

    Args:
        volume: ``(C, x, y, z)``.
        start: first voxel of the unrotated window; it may reach out of the volume in plane, where the edge continues.
        size: voxels along x, y, z.
        angle: radians, from x towards y.
        flip_axis: spatial axis to mirror, or None.
        mode: ``"bilinear"`` or ``"nearest"``.

    Returns:
        a plain tensor ``(C, *size)``, float32.
    """
    slab = volume[..., start[2] : start[2] + size[2]].float()
    # grid_sample's normalised coordinates: -1 and 1 are the outer edges of the first and last voxel
    x, y = (torch.arange(n, dtype=torch.float32, device=slab.device) - (n - 1) / 2 for n in size[:2])
    cos, sin = math.cos(angle), math.sin(angle)
    source_x = start[0] + (size[0] - 1) / 2 + cos * x[:, None] - sin * y[None, :]
    source_y = start[1] + (size[1] - 1) / 2 + sin * x[:, None] + cos * y[None, :]
    grid = torch.stack([(2 * source_y + 1) / slab.shape[2] - 1, (2 * source_x + 1) / slab.shape[1] - 1], -1)
    planes = slab.permute(0, 3, 1, 2).reshape(1, -1, *slab.shape[1:3])
    sampled = F.grid_sample(planes, grid[None], mode=mode, padding_mode="border", align_corners=False)
    window = sampled.reshape(len(volume), size[2], *size[:2]).permute(0, 2, 3, 1)
    return window if flip_axis is None else window.flip(flip_axis + 1)


class RandWindowd(Randomizable, MapTransform):
    """A random training window of the region that :class:`CropBodyd` left (MMFNet, section IV-A).

    A window of the inference grid is drawn uniformly, shifted, rotated within the slice and mirrored, the same for all
    keys.

    Args:
        keys: ``(C, x, y, z)``, the region with its margin.
        roi_size: window along x, y, z.
        margin: voxels of the region around the unshifted windows, as given to :class:`CropBodyd`; a z margin smaller
            than ``max_offset`` shortens the shift.
        step: slices between the windows of the inference grid.
        max_offset: largest shift along x, y, z in voxels, either way.
        max_angle: largest rotation in degrees, either way.
        flip_axis: spatial axis mirrored with probability 0.5; None for none.
        label_keys: those of ``keys`` sampled by the nearest voxel.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        margin: Sequence[int],
        step: int = 4,
        max_offset: Sequence[int] = (32, 32, 4),
        max_angle: float = 5.0,
        flip_axis: int | None = 1,
        label_keys: Sequence[str] = ("label",),
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.margin = tuple(margin)
        self.step = step
        self.max_offset = tuple(min(o, m) if i == 2 else o for i, (o, m) in enumerate(zip(max_offset, margin)))
        self.max_angle = max_angle
        self.flip_axis = flip_axis
        self.label_keys = tuple(label_keys)

    def randomize(self, slices: int) -> dict[str, Any]:
        """Draw a window of a region whose unshifted windows cover ``slices`` slices."""
        starts = window_starts(slices, self.roi_size[2], self.step)
        first = (0, 0, starts[self.R.randint(len(starts))])
        offset = [self.R.randint(-o, o + 1) for o in self.max_offset]
        angle = float(torch.deg2rad(torch.tensor(self.R.uniform(-self.max_angle, self.max_angle))))
        flip = self.flip_axis is not None and self.R.random_sample() < 0.5
        return {
            "start": [f + m + o for f, m, o in zip(first, self.margin, offset)],
            "angle": angle,
            "flip_axis": self.flip_axis if flip else None,
        }

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        window = None
        for key in self.key_iterator(d):
            if window is None:
                window = self.randomize(d[key].shape[3] - 2 * self.margin[2])
            volume = as_tensor(torch.as_tensor(d[key]))
            mode = "nearest" if key in self.label_keys else "bilinear"
            d[key] = cut_window(volume, size=self.roi_size, mode=mode, **window)
        return d
