"""Post-process a label map of tumours, component by component (section III-D)."""

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
from .classes import ENHANCING, NON_ENHANCING, OEDEMA

LARGE_COMPONENT = 2000  # voxels; a component of this size is never removed
SMALL_FRACTION = 10  # a component is small below 1/10 of the largest
ENHANCING_FRACTION = 10  # little enhances if less than 1/10 of the tumour does
ENHANCING_FRACTION_OF_COMPONENT = 20  # and less than 1/20 of the component
ENHANCING_VOXELS = 1000  # and fewer voxels than this in the component
RESTARTS = 10  # runs of K-means
SAME_MEAN = 1e-6  # standard deviations of the brain; clusters closer than this are equally bright


class CleanTumourd(MapTransform):
    """Remove small components of a tumour, then return to its core the voxels that were taken for oedema.

    Components are connected by faces, edges and corners. Sizes are in voxels, which are 1 mm in the paper (Zhou et
    al., doi:10.1109/TIP.2020.2973510, section III-D).

    1. Remove each component with less than a tenth of the voxels of the largest, and with less than 2000.
    2. Where little of a tumour enhances, the network often takes the other core for oedema. This step applies if
       enhancing tumour is less than a tenth of the remaining tumour. It changes each component in which enhancing
       tumour is less than a twentieth and less than 1000 voxels. There, K-means splits the oedema into two clusters by
       intensity, and the cluster that is darker after contrast becomes class 1. Nothing changes if no cluster is
       darker, or if there are fewer than two voxels.

    Step 2 changes neither the complete nor the enhancing tumour. K-means uses all modalities and takes the best of ten
    runs from k-means++ seeds.

    Args:
        keys: label maps ``(1, x, y, z)`` of the classes 0 to 3.
        image_key: key of the modalities ``(C, x, y, z)`` on the same grid, each normalised over the brain.
        contrast: channel of the image after contrast (T1c).
        seed: seed of K-means, the same for each case.

    Raises:
        ValueError: a label map has another shape than the image.
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
                raise ValueError(
                    f"'{key}' has the shape {list(label.shape)}, but the image has {list(image.shape)}; "
                    "expected a label map (1, x, y, z) on the grid of the image"
                )
            cleaned = label[0].cpu().numpy().astype(np.uint8)  # a copy
            components = _remove_small(cleaned)
            self._return_to_core(cleaned, components, as_tensor(image))
            result = torch.as_tensor(cleaned, device=label.device).to(label.dtype)[None]
            d[key] = MetaTensor(result, meta=dict(label.meta)) if isinstance(label, MetaTensor) else result
        return d

    def _return_to_core(self, label: np.ndarray, components: np.ndarray, image: Tensor) -> None:
        tumour = np.bincount(components[label > 0])
        enhancing = np.bincount(components[label == ENHANCING], minlength=len(tumour))
        if ENHANCING_FRACTION * enhancing.sum() >= tumour.sum():
            return
        little = (ENHANCING_FRACTION_OF_COMPONENT * enhancing < tumour) & (enhancing < ENHANCING_VOXELS)
        oedema = (label == OEDEMA).nonzero()
        component_of_oedema = components[oedema]
        for component in little.nonzero()[0]:
            x, y, z = (axis[component_of_oedema == component] for axis in oedema)
            values = image[:, x, y, z].T.cpu().double().numpy()
            group = two_clusters(values, np.random.default_rng(self.seed))
            if 0 < group.sum() < len(group):
                first, second = (values[group == g, self.contrast].mean() for g in (0, 1))
                if abs(first - second) > SAME_MEAN:
                    darker = group == int(second < first)
                    label[x[darker], y[darker], z[darker]] = NON_ENHANCING


def two_clusters(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster, 0 or 1, of each row of ``(n, features)`` by K-means; all 0 if no two rows differ."""
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
    """Write 0 over small components; return the number of the component of each voxel, before the removal."""
    components = cc3d.connected_components(label > 0, connectivity=26)
    voxels = np.bincount(components.ravel())
    voxels[0] = 0
    small = (SMALL_FRACTION * voxels < voxels.max()) & (voxels < LARGE_COMPONENT)
    label[small[components]] = 0
    return components
