"""Clip and select the channels of an image, one for each modality (section IV-A)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ...errors import InputError
from ...tensors import source_of

# Range of each modality after normalisation, in standard deviations of the body; section IV-A.
CLIPPING_RANGES: Mapping[str, tuple[float, float]] = {"T1": (-2, 1), "T2": (-3, 2), "CET1": (-2, 3.5)}
OTHER_RANGE = (-3, 3.5)  # any other modality: the union of the three


def clipping_ranges(modalities: Sequence[str]) -> list[list[float]]:
    """Return the lowest and the highest value of each modality, for :class:`ClipChannelsd`.

    The paper gives the ranges of T1, T2 and CET1. Any other modality is clipped to -3 to 3.5, the union of the three.

    Args:
        modalities: names of the image's channels, in order.
    """
    return [list(CLIPPING_RANGES.get(modality, OTHER_RANGE)) for modality in modalities]


class ClipChannelsd(MapTransform):
    """Clip each channel to its own range.

    Args:
        keys: images ``(C, x, y, z)``.
        ranges: lowest and highest value of each channel, as :func:`clipping_ranges` returns them.

    Raises:
        InputError: the number of channels differs from the number of ranges.
    """

    def __init__(
        self, keys: KeysCollection, ranges: Sequence[Sequence[float]], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ranges = torch.tensor(ranges, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            if len(d[key]) != len(self.ranges):
                raise InputError(
                    f"{source_of(d[key], key)}: {len(d[key])} channels, but {len(self.ranges)} clipping ranges; "
                    "give one range for each of the modalities"
                )
            low, high = self.ranges.to(d[key].device)[:, :, None, None, None].unbind(1)
            d[key] = torch.clamp(d[key], low, high)
        return d


class SelectChannelsd(MapTransform):
    """Select channels, such as the modalities that a variant of the network uses.

    Args:
        keys: images ``(C, x, y, z)``.
        channels: indices of the channels to keep, in order.

    Raises:
        InputError: an image has no channel of an index.
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
            count = len(d[key])
            if max(self.channels) >= count:
                raise InputError(
                    f"{source_of(d[key], key)}: channels is {self.channels}, but the image has only {count}, one for "
                    f'each of the modalities, numbered from 0; give --channels "{list(range(count))}"'
                )
            if self.channels != list(range(count)):
                d[key] = d[key][self.channels]
        return d
