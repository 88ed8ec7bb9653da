"""Cut random training patches of anisotropic volumes, rotated within the slice (section IV-A)."""

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
    """Return the first slice of each inference window of ``size`` slices, every ``step`` slices; the last ends flush.

    Args:
        slices: number of slices of the volume.
        size: slices of a window.
        step: slices between the starts of two windows.
    """
    return [*range(0, max(slices - size, 0), step), max(slices - size, 0)]


def cut_rotated_patch(
    volume: Tensor, start: Sequence[int], size: Sequence[int], angle: float, flip_axis: int | None, mode: str
) -> Tensor:
    """Cut a patch that is rotated within the slice around its centre, in one resampling of the patch alone.

    Args:
        volume: ``(C, x, y, z)``.
        start: first voxel of the unrotated patch; it may lie outside the volume in plane, where the edge continues.
        size: voxels of the patch along x, y, z.
        angle: radians, from x towards y.
        flip_axis: spatial axis to mirror, or None.
        mode: ``"bilinear"`` or ``"nearest"``.

    Returns:
        plain tensor ``(C, *size)``, float32.
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
    patch = sampled.reshape(len(volume), size[2], *size[:2]).permute(0, 2, 3, 1)
    return patch if flip_axis is None else patch.flip(flip_axis + 1)


class RandCropRotatedPatchd(Randomizable, MapTransform):
    """Crop a random patch of the region that :class:`CropBodyd` left (section IV-A).

    A window of the inference grid is drawn uniformly. The patch is this window after a random shift, a rotation within
    the slice and a reflection, the same for all keys.

    Args:
        keys: ``(C, x, y, z)``, the region with its margin.
        roi_size: patch size along x, y, z in voxels.
        margin: voxels of the region around the unshifted windows, as for :class:`CropBodyd`; a z margin smaller than
            ``max_offset`` shortens the shift.
        step: slices between the windows of the inference grid.
        max_offset: largest shift along x, y, z in voxels, either way.
        max_angle: largest rotation in degrees, either way.
        flip_axis: spatial axis that is mirrored with probability 0.5; None for no reflection.
        label_keys: keys that are sampled by the nearest voxel.
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
        """Draw the start, angle and reflection of a patch.

        Args:
            slices: number of slices that the unshifted windows cover.
        """
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
        place = self.randomize(d[self.first_key(d)].shape[3] - 2 * self.margin[2])
        for key in self.key_iterator(d):
            volume = as_tensor(torch.as_tensor(d[key]))
            mode = "nearest" if key in self.label_keys else "bilinear"
            d[key] = cut_rotated_patch(volume, size=self.roi_size, mode=mode, **place)
        return d
