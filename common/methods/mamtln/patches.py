"""Training patches, some of them centred on the tumour."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from torch import Tensor

from ...tensors import as_tensor


class TumourVoxelsd(MapTransform):
    """Where the tumour is, for :class:`RandCropTumourd`; to be cached with the case.

    Adds an entry of flat indices into the label, int32 on the CPU, possibly none. MONAI's ``FgBgToIndicesd`` lists the
    background too, eight bytes for each voxel of the volume.

    Args:
        keys: the label ``(1, x, y, z)`` on the grid on which patches are cut.
        labels: its values that are tumour.
        output_key: of the new entry.
    """

    def __init__(
        self, keys: KeysCollection = "label", labels: Sequence[int] = (1,), output_key: str = "tumour_voxels"
    ) -> None:
        super().__init__(keys)
        self.labels = tuple(labels)
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        label = as_tensor(torch.as_tensor(d[self.first_key(d)]))
        d[self.output_key] = torch.isin(label, label.new_tensor(self.labels)).flatten().nonzero()[:, 0].int().cpu()
        return d


class RandCropTumourd(Randomizable, MapTransform):
    """A random patch: centred on a random voxel of the tumour with a given probability, or else anywhere.

    A centred patch is moved into the volume where it would reach out. Patches of a case without tumour lie anywhere.
    Where the volume is smaller than a patch, a constant fills both sides. The entry with the voxels is taken out.

    Args:
        keys: ``(C, x, y, z)``, all on one grid; the patches are plain tensors of their type, and copies.
        roi_size: patch ``(x, y, z)``.
        tumour_share: probability that a patch is centred on tumour.
        fill: constant beyond the volume, for all keys or one each.
        voxels_key: what :class:`TumourVoxelsd` added.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        tumour_share: float = 0.5,
        fill: float | Sequence[float] = 0.0,
        voxels_key: str = "tumour_voxels",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.tumour_share = tumour_share
        self.fill = ensure_tuple_rep(fill, len(self.keys))
        self.voxels_key = voxels_key

    def randomize(self, voxels: Tensor, shape: Sequence[int]) -> list[int]:
        """Draw the start of a patch in a volume ``(x, y, z)``."""
        last = [max(n - size, 0) for n, size in zip(shape, self.roi_size)]
        if self.R.random_sample() < self.tumour_share and len(voxels) > 0:
            centre = np.unravel_index(int(voxels[self.R.randint(len(voxels))]), shape)
            return [min(max(int(c) - size // 2, 0), end) for c, size, end in zip(centre, self.roi_size, last)]
        return [int(self.R.randint(end + 1)) for end in last]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        start = self.randomize(d.pop(self.voxels_key), d[self.first_key(d)].shape[1:])
        for key, fill in self.key_iterator(d, self.fill):
            box = tuple(slice(first, first + size) for first, size in zip(start, self.roi_size))
            patch = as_tensor(d[key])[(slice(None), *box)]
            missing = [size - n for size, n in zip(self.roi_size, patch.shape[1:])]
            padding = [side for m in reversed(missing) for side in (m // 2, m - m // 2)]  # the last axis first
            d[key] = F.pad(patch, padding, value=fill) if any(padding) else patch.clone()
        return d
