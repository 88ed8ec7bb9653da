"""Choosing channels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class SelectChannelsd(MapTransform):
    """Keep some channels, such as the modalities that a variant of a network uses.

    Args:
        keys: images ``(C, x, y, z)``.
        channels: indices to keep, in order.
    """

    def __init__(self, keys: KeysCollection, channels: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = list(channels)

    def channels_after(self, channels: int) -> int:
        """Return the number of channels of the result, see :mod:`common.transforms`."""
        return len(self.channels)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.channels != list(range(len(d[key]))):
                d[key] = d[key][self.channels]
        return d
