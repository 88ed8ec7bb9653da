"""Augmentation within the slices of volumes whose slices are thick."""

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
    """2-D dictionary transforms on all slices alike.

    The slices become channels of one image, so that what the transforms draw, a rotation or a deformation, is the same
    for all of them and nothing is interpolated across thick slices. What a transform draws for each channel differs
    between slices. Sizes in plane may change. The affine of the result is that of the input.

    Args:
        keys: ``(C, x, y, z)``, all with the same in-plane size where the transforms act on them together.
        transforms: MONAI's for these keys, such as ``RandAffined``, ``Rand2DElasticd``; they get ``(C * z, x, y)``.
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
