"""From the probabilities of a cascade of tasks, coarse to fine, to one label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

from ...tensors import as_tensor, dilate
from .brain import OTHER_BRAIN

COARSE, FINE, ENHANCING = slice(0, 5), slice(5, 10), slice(10, 12)  # channels of the three tasks


class FuseTasksd(MapTransform):
    """Probabilities of a coarse, a fine and an enhancing task to classes 0 to 3, as the model cascade joins them.

    The coarse task says where a tumour is: where its tumour classes together have more than half of the probability,
    and around that. There the fine task decides between its five classes. In its core, classes 1 and 3, the last task
    alone tells enhancing tumour, 3, from the rest, 1 (Zhou et al., doi:10.1109/TIP.2020.2973510, section III-A).

    Args:
        keys: ``(12, x, y, z)``, probabilities of 5, 5 and 2 classes, to a label map ``(1, x, y, z)``, uint8.
        levels: tasks that count: 1, the decision of the coarse task itself; 2, without the last; or 3. The channels of
            the others may be missing.
        margin: voxels around the coarse tumour, along all axes and diagonals, that belong to its region.

    Raises:
        ValueError: other ``levels``, or fewer channels than these have.
    """

    def __init__(
        self, keys: KeysCollection, levels: int = 3, margin: int = 5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if levels not in (1, 2, 3):
            raise ValueError(f"levels={levels}: expected 1, 2 or 3")
        self.levels = levels
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            scores = d[key]
            channels = (COARSE, FINE, ENHANCING)[self.levels - 1].stop
            if len(scores) < channels:
                raise ValueError(f"'{key}' of shape {list(scores.shape)}: expected {channels} channels")
            label = self._fuse(as_tensor(scores))
            d[key] = MetaTensor(label, meta=dict(scores.meta)) if isinstance(scores, MetaTensor) else label
        return d

    def _fuse(self, scores: Tensor) -> Tensor:
        if self.levels == 1:
            return _classes(scores[COARSE])[None]
        label = torch.zeros_like(scores[:1], dtype=torch.uint8)
        coarse = scores[1:4].sum(0) > 0.5
        # what follows is computed in the region's box only
        start, end = generate_spatial_bounding_box(coarse[None], margin=self.margin, allow_smaller=True)
        x, y, z = (slice(a, b) for a, b in zip(start, end))
        if not coarse[x, y, z].any():
            return label
        fine = _classes(scores[FINE, x, y, z])
        fine[~dilate(coarse[None, x, y, z], self.margin)[0]] = 0
        if self.levels == 3:
            core = (fine == 1) | (fine == 3)
            no, yes = scores[ENHANCING, x, y, z]
            fine[core] = torch.where(yes > no, 3, 1).to(torch.uint8)[core]
        label[0, x, y, z] = fine
        return label


def _classes(scores: Tensor) -> Tensor:
    """The likeliest of five classes, those without tumour as 0."""
    label = scores.argmax(0).to(torch.uint8)
    label[label == OTHER_BRAIN] = 0
    return label
