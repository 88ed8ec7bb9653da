"""Add the background to the maps of a network that returns foreground alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..tensors import as_tensor


class AddBackgroundd(MapTransform):
    """Put the probability of the background before those of several labels, each the sigmoid of an own logit.

    It is 1 minus the largest of them. So the most probable class is the label with the largest probability if this is
    above 0.5, and the background otherwise. The probability of a single label stays alone: a threshold of 0.5 decides.

    Args:
        keys: probabilities ``(K, x, y, z)``, which become ``(1 + K, x, y, z)`` if K is above 1.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            labels = as_tensor(d[key])
            if len(labels) > 1:
                d[key] = torch.cat([1 - labels.amax(0, keepdim=True), labels])
        return d
