"""Corrections of a label map of tumours, connected part by connected part."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.cluster.vq import kmeans, vq
from torch import Tensor

from ...tensors import as_tensor

CORE, OEDEMA, ENHANCING = 1, 2, 3  # classes; the first is necrosis and non-enhancing tumour
LARGE_PART = 2000  # voxels; such a part is never removed
SMALL_SHARE = 10  # a part below the 10th part of the largest is small
ENHANCING_SHARE, ENHANCING_SHARE_OF_PART = 10, 20  # below the 10th of the tumour, the 20th of a part, it is little
ENHANCING_VOXELS = 1000  # and below this in the part
RESTARTS = 10
SAME_MEAN = 1e-6  # standard deviations of the brain


class CleanTumourd(MapTransform):
    """Remove small parts of a tumour, then give back to its core what was taken for oedema.

    Parts are connected by faces, edges and corners; all sizes are counted in voxels, at 1 mm in the paper (Zhou et al.,
    doi:10.1109/TIP.2020.2973510, section III-D).

    1. A part is removed that has less than a tenth of the largest part's voxels, and less than 2000.
    2. Where little of the tumour enhances, core that does not is easily taken for oedema. If enhancing tumour is less
       than a tenth of what remains, then in each part in which it is less than a twentieth, and less than 1000 voxels,
       the oedema is clustered in two by its intensities. The cluster that is darker after contrast becomes class 1. It
       stays oedema if there is no darker one, or there are fewer than two voxels.

    Step 2 changes neither the complete nor the enhancing tumour. The clusters are those of K-means over all modalities,
    the best of ten runs from k-means++ seeds.

    Args:
        keys: label maps ``(1, x, y, z)`` of the classes 0 to 3.
        image_key: the modalities ``(C, x, y, z)`` on the same grid, each normalised over the brain.
        contrast: the image's channel after contrast (T1c).
        seed: of K-means, for each case alike.

    Raises:
        ValueError: a label map of another shape than the image's.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        contrast: int = 2,
        seed: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.contrast = contrast
        self.seed = seed

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            label = d[key]
            if label.shape != (1, *image.shape[1:]):
                raise ValueError(f"'{key}' of shape {list(label.shape)} for an image of {list(image.shape)}")
            cleaned = label[0].cpu().numpy().astype(np.uint8)  # a copy
            parts = _remove_small(cleaned)
            self._return_to_core(cleaned, parts, as_tensor(image))
            result = torch.as_tensor(cleaned, device=label.device).to(label.dtype)[None]
            d[key] = MetaTensor(result, meta=dict(label.meta)) if isinstance(label, MetaTensor) else result
        return d

    def _return_to_core(self, label: np.ndarray, parts: np.ndarray, image: Tensor) -> None:
        tumour = np.bincount(parts[label > 0])
        enhancing = np.bincount(parts[label == ENHANCING], minlength=len(tumour))
        if ENHANCING_SHARE * enhancing.sum() >= tumour.sum():
            return
        little = (ENHANCING_SHARE_OF_PART * enhancing < tumour) & (enhancing < ENHANCING_VOXELS)
        oedema = (label == OEDEMA).nonzero()
        parts_of_oedema = parts[oedema]
        for part in little.nonzero()[0]:
            x, y, z = (axis[parts_of_oedema == part] for axis in oedema)
            values = image[:, x, y, z].T.cpu().double().numpy()
            group = two_clusters(values, np.random.default_rng(self.seed))
            if 0 < group.sum() < len(group):
                first, second = (values[group == g, self.contrast].mean() for g in (0, 1))
                if abs(first - second) > SAME_MEAN:
                    darker = group == int(second < first)
                    label[x[darker], y[darker], z[darker]] = CORE


def two_clusters(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """K-means of ``(n, features)``: 0 or 1 for each row, all 0 if no two rows differ."""
    best, lowest = np.zeros(len(values), int), np.inf
    if len(values) < 2 or not np.ptp(values, axis=0).any():
        return best
    for _ in range(RESTARTS):
        seed = values[rng.integers(len(values))]
        squares = ((values - seed) ** 2).sum(1)
        other = values[rng.choice(len(values), p=squares / squares.sum())]
        centres, _ = kmeans(values, np.stack([seed, other]))
        group, distances = vq(values, centres)
        if (distances**2).sum() < lowest:
            best, lowest = group, (distances**2).sum()
    return best


def _remove_small(label: np.ndarray) -> np.ndarray:
    """Write 0 over small parts; returns the numbers of the parts, of which those of the removed do not occur in it."""
    parts = cc3d.connected_components(label > 0, connectivity=26)
    voxels = np.bincount(parts.ravel())
    voxels[0] = 0
    small = (SMALL_SHARE * voxels < voxels.max()) & (voxels < LARGE_PART)
    label[small[parts]] = 0
    return parts
