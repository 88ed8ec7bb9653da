"""Cut training patches, a share of which is centred on the tumour (section V-A)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from torch import Tensor

from ...tensors import as_tensor
from ...transforms.patches import centred_start, cut_patch


class FindTumourVoxelsd(MapTransform):
    """Find the voxels of the tumour, on which :class:`RandCropTumourPatchd` centres patches.

    Add an entry of flat indices into the label, int32 on the CPU, possibly none. It is cached with the case. MONAI's
    ``FgBgToIndicesd`` also lists the background, at eight bytes for each voxel of the volume.

    Args:
        keys: the label ``(1, x, y, z)`` on the grid on which patches are cut.
        labels: values of the label that are tumour.
        output_key: key of the new entry.
    """

    def __init__(
        self, keys: KeysCollection = "label", labels: Sequence[int] = (1,), output_key: str = "centres"
    ) -> None:
        super().__init__(keys)
        self.labels = tuple(labels)
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        label = as_tensor(torch.as_tensor(d[self.first_key(d)]))
        d[self.output_key] = torch.isin(label, label.new_tensor(self.labels)).flatten().nonzero()[:, 0].int().cpu()
        return d


class RandCropTumourPatchd(Randomizable, MapTransform):
    """Crop a random patch: centred on a random voxel of the tumour with a given probability, otherwise anywhere.

    A patch may reach out of the volume by half of the margin that a later crop to ``final_size`` removes, so that the
    final patch covers the border too. A centred patch that reaches further is moved back. A constant fills the part
    outside, and both sides where the volume is smaller than the final patch. Patches of a case without tumour lie
    anywhere. The entry with the centres is removed.

    Args:
        keys: ``(C, x, y, z)``, all on one grid; the patches are plain tensors of the same type, and copies.
        roi_size: patch size ``(x, y, z)`` in voxels.
        tumour_share: probability that a patch is centred on the tumour.
        fill: value outside the volume, one for all keys or one for each.
        centres_key: key of the entry of :class:`FindTumourVoxelsd`.
        final_size: size ``(x, y, z)`` in voxels of the middle that remains in the end. Default: the whole patch.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        tumour_share: float = 0.5,
        fill: float | Sequence[float] = 0.0,
        centres_key: str = "centres",
        final_size: Sequence[int] | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.final_size = self.roi_size if final_size is None else tuple(final_size)
        self.tumour_share = tumour_share
        self.fill = ensure_tuple_rep(fill, len(self.keys))
        self.centres_key = centres_key

    def randomize(self, centres: Tensor, shape: Sequence[int]) -> list[int]:
        """Draw the first voxel of a patch in a volume of ``shape`` ``(x, y, z)``."""
        ranges = [_starts(*sizes) for sizes in zip(shape, self.roi_size, self.final_size)]
        if self.R.random_sample() < self.tumour_share and len(centres) > 0:
            flat = int(centres[self.R.randint(len(centres))])
            start = centred_start([int(c) for c in np.unravel_index(flat, shape)], self.roi_size)
            return [min(max(a, low), high) for a, (low, high) in zip(start, ranges)]
        return [low + int(self.R.randint(high - low + 1)) for low, high in ranges]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        start = self.randomize(d.pop(self.centres_key), d[self.first_key(d)].shape[1:])
        for key, fill in self.key_iterator(d, self.fill):
            d[key] = cut_patch(d[key], start, self.roi_size, fill)
        return d


def _starts(n: int, size: int, final: int) -> tuple[int, int]:
    """Return the first and the last start of a patch along an axis of ``n`` voxels."""
    if n < final:
        middle = -((size - n) // 2)
        return middle, middle
    reach = -(-(size - final) // 2)  # half of the margin, rounded up
    return -reach, n + reach - size
