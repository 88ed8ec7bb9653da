"""Windows centred on lesions: of training, jittered, and of the published test protocol."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import Crop, MapTransform, Pad, Randomizable
from torch import Tensor

from ...tensors import as_tensor


class LesionCentresd(MapTransform):
    """On which voxels the windows of a case are centred; to be cached with the case.

    Adds an entry ``(n, 3)``, int32 on the CPU. Of a case with lesions: the centroids of their connected parts, the
    largest part first. Of one without: voxels of the lungs. The first of these is the middle of the lung on that side
    of the body's middle which has more of it, the others are spread evenly. The entry with the lungs is taken out.

    Args:
        keys: the label ``(1, x, y, z)``, above 0 in lesions, on the grid on which windows are cut.
        lungs_key: mask of the lungs on the same grid, as :class:`CropLungsd` leaves it.
        smallest: voxels of a part that counts; where all are smaller, all count.
        samples: voxels of the lungs.
        output_key: of the new entry.
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
        lungs = as_tensor(d.pop(self.lungs_key))[0].cpu().numpy()
        centres = self._of_lesions(lesion) if lesion.any() else self._of_lungs(lungs)
        d[self.output_key] = torch.from_numpy(np.rint(centres).astype(np.int32))
        return d

    def _of_lesions(self, lesion: np.ndarray) -> np.ndarray:
        found = cc3d.statistics(cc3d.connected_components(lesion, connectivity=26))
        sizes, centroids = found["voxel_counts"][1:], found["centroids"][1:]
        order = np.argsort(-sizes.astype(np.int64), kind="stable")
        large = order[sizes[order] >= self.smallest]
        return centroids[large if len(large) else order]

    def _of_lungs(self, lungs: np.ndarray) -> np.ndarray:
        voxels = np.flatnonzero(lungs)
        x, y, z = np.unravel_index(voxels, lungs.shape)
        left = x < x.mean()
        side = left if 2 * left.sum() >= len(left) else ~left
        middle = [x[side].mean(), y[side].mean(), z[side].mean()]
        chosen = np.linspace(0, len(voxels) - 1, min(self.samples, len(voxels))).astype(np.int64)
        return np.vstack([middle, np.stack([x, y, z], axis=1)[chosen]])


class RandCropAtd(Randomizable, MapTransform):
    """A window around one of a case's centres, drawn uniformly, and moved by a random number of voxels.

    What lies beyond the volume is 0: air in an image scaled to start there, background in a label. The entry with the
    centres is taken out.

    Args:
        keys: ``(C, x, y, z)``, all on one grid; the windows are plain tensors of their type, and copies.
        roi_size: window ``(x, y, z)``.
        jitter: largest move along each axis in voxels, either way.
        centres_key: what :class:`LesionCentresd` added.

    Raises:
        ValueError: a move that could take a window away from its centre.
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
        """Draw the voxel on which a window is centred."""
        centre = centres[self.R.randint(len(centres))].tolist()
        return [c + int(self.R.randint(-most, most + 1)) for c, most in zip(centre, self.jitter)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        centre = self.randomize(d.pop(self.centres_key))
        for key in self.key_iterator(d):
            inside, outside = _window(centre, self.roi_size, d[key].shape[1:])
            padding = [side for pair in reversed(outside) for side in pair]  # the last axis first
            window = as_tensor(d[key])[(slice(None), *inside)]
            d[key] = F.pad(window, padding) if any(padding) else window.clone()
        return d


class CropAtd(MapTransform):
    """The window around a case's first centre, the centroid of its largest lesion: the protocol of published figures.

    What lies beyond the volume is 0. The entry with the centres is taken out. The window keeps an affine.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        roi_size: window ``(x, y, z)``.
        centres_key: what :class:`LesionCentresd` added.
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
        """Return the shape of the window, see :mod:`common.transforms`."""
        return self.roi_size, spacing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        centre = d.pop(self.centres_key)[0].tolist()
        for key in self.key_iterator(d):
            inside, outside = _window(centre, self.roi_size, d[key].shape[1:])
            window = self.crop(d[key], inside)
            d[key] = self.pad(window, to_pad=[(0, 0), *outside], value=0)
        return d


def _window(
    centre: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[list[slice], list[tuple[int, int]]]:
    """Of a window around a voxel: what of it is in the volume, and how much before and after is not."""
    starts = [c - n // 2 for c, n in zip(centre, size)]
    inside = [slice(max(a, 0), min(a + n, m)) for a, n, m in zip(starts, size, shape)]
    return inside, [(s.start - a, a + n - s.stop) for a, n, s in zip(starts, size, inside)]
