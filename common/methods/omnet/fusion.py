"""Fuse the probabilities of the three tasks into one label map (section III-A)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box
from torch import Tensor

from ...tensors import as_tensor, dilate
from .classes import OTHER_BRAIN

COARSE, TUMOUR, ENHANCING = slice(0, 5), slice(5, 10), slice(10, 12)  # channels of the three tasks


class FuseTasksd(MapTransform):
    """Fuse the probabilities of the coarse, the tumour and the enhancing task into the classes 0 to 3.

    The coarse tumour is where the three tumour classes of the coarse task together have more than half of the
    probability. In this region and a margin, the tumour task decides between its five classes. In the core, which is
    where the tumour task decides for class 1 or 3, the enhancing task decides between enhancing tumour (3) and the rest
    (1). Zhou et al., doi:10.1109/TIP.2020.2973510, section III-A.

    Args:
        keys: probabilities ``(12, x, y, z)`` of 5, 5 and 2 classes; they become a label map ``(1, x, y, z)``, uint8.
        levels: number of tasks that count: 1, the coarse task decides alone; 2, without the enhancing task; 3, all. The
            channels of the other tasks may be missing.
        margin: voxels around the coarse tumour, along all axes and diagonals, that belong to its region.

    Raises:
        ValueError: ``levels`` is not 1, 2 or 3, or there are fewer channels than the tasks have.
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
            channels = (COARSE, TUMOUR, ENHANCING)[self.levels - 1].stop
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
        # the rest needs only the box of the region
        start, end = generate_spatial_bounding_box(coarse[None], margin=self.margin, allow_smaller=True)
        x, y, z = (slice(a, b) for a, b in zip(start, end))
        if not coarse[x, y, z].any():
            return label
        found = _classes(scores[TUMOUR, x, y, z])
        found[~dilate(coarse[None, x, y, z], self.margin)[0]] = 0
        if self.levels == 3:
            core = (found == 1) | (found == 3)
            no, yes = scores[ENHANCING, x, y, z]
            found[core] = torch.where(yes > no, 3, 1).to(torch.uint8)[core]
        label[0, x, y, z] = found
        return label


def fused_probabilities(scores: Tensor, levels: int = 3, margin: int = 5) -> Tensor:
    """Return the probabilities of the classes 0 to 3 from those of the three tasks.

    Class 0 sums both classes without tumour. The coarse task holds outside the region of :class:`FuseTasksd`, where it
    gives the background at least half, and the tumour task inside. In the core, the enhancing task divides the
    probability of class 1 and class 3 between these two. The largest probability mostly is the class that the tasks
    decide for, but not always: the decisions are nested.

    Args:
        scores: probabilities ``(12, x, y, z)``; the channels of tasks that do not count may be missing.
        levels, margin: as for :class:`FuseTasksd`.

    Returns:
        tensor ``(4, x, y, z)``, with sum 1.
    """
    result = _without_brain(scores[COARSE])
    if levels == 1:
        return result
    region = dilate((scores[1:4].sum(0) > 0.5)[None], margin)[0]
    result = torch.where(region, _without_brain(scores[TUMOUR]), result)
    if levels == 3:
        found = _classes(scores[TUMOUR])
        core = region & ((found == 1) | (found == 3))
        no, yes = scores[ENHANCING]
        both = result[1] + result[3]
        result[1] = torch.where(core, both * no, result[1])
        result[3] = torch.where(core, both * yes, result[3])
    return result


def _without_brain(scores: Tensor) -> Tensor:
    """Return the probabilities ``(4, ...)`` of the five classes after joining the two without tumour."""
    return torch.cat([(scores[0] + scores[OTHER_BRAIN])[None], scores[1:4]])


def _classes(scores: Tensor) -> Tensor:
    """Return the most probable of five classes, with 0 for both classes without tumour."""
    label = scores.argmax(0).to(torch.uint8)
    label[label == OTHER_BRAIN] = 0
    return label
