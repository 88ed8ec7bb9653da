"""Cut patches centred on lesions: random ones for training, one fixed patch for the published test protocol."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Crop, MapTransform, Pad, Randomizable
from torch import Tensor

from ...tensors import as_tensor
from ...transforms.patches import centred_start, cut_patch, patch_box


class FindLesionCentresd(MapTransform):
    """Find the voxels on which the patches of a case are centred.

    Add an entry ``(n, 3)``, int32 on the CPU, which is cached with the case. In a case with lesions, the centres are
    the centroids of the connected components of the lesions, the largest component first. In a case without, they are
    voxels of the lungs: first the middle of the lung on that side of the body's middle which has more of it, then
    evenly spread voxels. The entry with the lungs is removed. Without it, as for another organ, they are the middle of
    the scan and voxels spread over it.

    Args:
        keys: the label ``(1, x, y, z)``, above 0 in lesions, on the grid on which patches are cut.
        lungs_key: mask of the lungs on the same grid, from :class:`CropLungsd`; a case may have none.
        smallest: smallest component that counts, in voxels; where all are smaller, all count.
        samples: number of voxels of the lungs.
        output_key: key of the new entry.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        lungs_key: str = "lungs",
        smallest: int = 10,
        samples: int = 256,
        output_key: str = "centres",
    ) -> None:
        super().__init__(keys)
        self.lungs_key = lungs_key
        self.smallest = smallest
        self.samples = samples
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        lesion = (as_tensor(d[self.first_key(d)])[0] > 0).cpu().numpy()
        mask = d.pop(self.lungs_key, None)
        if lesion.any():
            centres = self._lesion_centres(lesion)
        elif mask is not None:
            centres = self._lung_centres(as_tensor(mask)[0].cpu().numpy())
        else:
            middle = [(n - 1) / 2 for n in lesion.shape]
            centres = np.vstack([middle, self._spread(np.ones(lesion.shape, dtype=bool))])
        d[self.output_key] = torch.from_numpy(np.rint(centres).astype(np.int32))
        return d

    def _lesion_centres(self, lesion: np.ndarray) -> np.ndarray:
        found = cc3d.statistics(cc3d.connected_components(lesion, connectivity=26))
        sizes, centroids = found["voxel_counts"][1:], found["centroids"][1:]
        order = np.argsort(-sizes.astype(np.int64), kind="stable")
        large = order[sizes[order] >= self.smallest]
        return centroids[large if len(large) else order]

    def _lung_centres(self, lungs: np.ndarray) -> np.ndarray:
        x, y, z = lungs.nonzero()
        left = x < x.mean()
        side = left if 2 * left.sum() >= len(left) else ~left
        middle = [x[side].mean(), y[side].mean(), z[side].mean()]
        return np.vstack([middle, self._spread(lungs)])

    def _spread(self, mask: np.ndarray) -> np.ndarray:
        """Return evenly chosen voxels of a mask, ``(n, 3)``."""
        voxels = np.flatnonzero(mask)
        chosen = np.linspace(0, len(voxels) - 1, min(self.samples, len(voxels))).astype(np.int64)
        return np.stack(np.unravel_index(voxels[chosen], mask.shape), axis=1)


class RandCropLesionPatchd(Randomizable, MapTransform):
    """Crop a patch around one of a case's centres, drawn uniformly and moved by a random number of voxels.

    Voxels outside the volume are 0: air in an image scaled to start at 0, background in a label. The entry with the
    centres is removed.

    Args:
        keys: ``(C, x, y, z)``, all on one grid; the patches are plain tensors of the same type, and copies.
        roi_size: patch size ``(x, y, z)`` in voxels.
        jitter: largest move along each axis in voxels, either way.
        centres_key: key of the entry of :class:`FindLesionCentresd`.

    Raises:
        ValueError: ``jitter`` could move a patch off its centre.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        jitter: Sequence[int] = (8, 8, 4),
        centres_key: str = "centres",
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.jitter = tuple(jitter)
        if any(2 * most >= n for most, n in zip(self.jitter, self.roi_size)):
            raise ValueError(f"jitter={self.jitter}: expected less than half of roi_size={self.roi_size}")
        self.centres_key = centres_key

    def randomize(self, centres: Tensor) -> list[int]:
        """Draw the first voxel of a patch."""
        centre = centres[self.R.randint(len(centres))].tolist()
        moved = [c + int(self.R.randint(-most, most + 1)) for c, most in zip(centre, self.jitter)]
        return centred_start(moved, self.roi_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        start = self.randomize(d.pop(self.centres_key))
        for key in self.key_iterator(d):
            d[key] = cut_patch(d[key], start, self.roi_size)
        return d


class CropLesionPatchd(MapTransform):
    """Crop the patch around a case's first centre, the centroid of its largest lesion.

    This is the protocol of the published figures. Voxels outside the volume are 0. The entry with the centres is
    removed. The patch keeps its affine.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        roi_size: patch size ``(x, y, z)`` in voxels.
        centres_key: key of the entry of :class:`FindLesionCentresd`.
    """

    def __init__(self, keys: KeysCollection, roi_size: Sequence[int], centres_key: str = "centres") -> None:
        super().__init__(keys)
        self.roi_size = tuple(roi_size)
        self.centres_key = centres_key
        self.crop = Crop()
        self.pad = Pad()

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the shape of the patch, see :mod:`common.transforms`."""
        return self.roi_size, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        start = centred_start(d.pop(self.centres_key)[0].tolist(), self.roi_size)
        for key in self.key_iterator(d):
            inside, outside = patch_box(start, self.roi_size, d[key].shape[1:])
            d[key] = self.pad(self.crop(d[key], inside), to_pad=[(0, 0), *outside], value=0)
        return d
