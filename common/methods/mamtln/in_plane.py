"""Augment volumes of thick slices within the plane of the slices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform, Randomizable
from torch import Tensor

from ...tensors import as_tensor


class InPlaned(Randomizable, MapTransform):
    """Apply 2-D dictionary transforms to all slices in the same way.

    The slices become channels of one image. So a random rotation or deformation is the same for all slices, and no
    voxel is interpolated across thick slices. Random values that a transform draws for each channel differ between
    slices. The in-plane size may change. The result keeps the affine of the input.

    Args:
        keys: ``(C, x, y, z)``, with the same in-plane size for keys that one transform handles together.
        transforms: MONAI transforms for these keys, such as ``RandAffined``; they get ``(C * z, x, y)``.
    """

    def __init__(self, keys: KeysCollection, transforms: Sequence[Callable], allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transforms = Compose(transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> InPlaned:
        self.transforms.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        volumes: dict[Hashable, Tensor] = {key: d[key] for key in self.key_iterator(d)}
        slices = {key: as_tensor(volume).permute(0, 3, 1, 2).flatten(0, 1) for key, volume in volumes.items()}
        for key, image in self.transforms({**d, **slices}).items():
            if key in volumes:
                before = volumes[key]
                after = as_tensor(image).unflatten(0, (before.shape[0], before.shape[3])).permute(0, 2, 3, 1)
                d[key] = MetaTensor(after).copy_meta_from(before) if isinstance(before, MetaTensor) else after
        return d
