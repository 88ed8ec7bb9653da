"""Hounsfield units to a network's input.

Scaling holds one volume beside its input, the result; MONAI's ``ScaleIntensityRanged`` holds three at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..errors import InputError
from ..tensors import plain, source_of

FAT = -50  # HU; no part of a body is without fat, which is below, or air


class CheckHounsfieldd(MapTransform):
    """Check that a volume can be CT in Hounsfield units.

    An MRI, or a CT whose offset got lost, has no value as low as fat; a network for CT would make some mask of it.

    Args:
        keys: images ``(C, x, y, z)``, as read.

    Raises:
        InputError: no voxel is below -50 HU.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = plain(d[key])
            if volume.dtype == torch.uint16:  # of which torch has no minimum
                volume = volume.int()
            lowest, highest = (float(value) for value in volume.aminmax())
            if lowest > FAT:
                raise InputError(
                    f"{source_of(d[key], key)}: values from {lowest:g} to {highest:g}, expected a CT in Hounsfield "
                    f"units, in which fat and air are below {FAT}; give a CT, with its rescale intercept applied"
                )
        return d


class ClipScaled(MapTransform):
    """Limit to a window, and map the window linearly to another range; float32.

    Args:
        keys: images ``(C, x, y, z)``; they stay as they are, the result is a new tensor.
        low: start of the window.
        high: its end.
        to: what ``low`` and ``high`` become.

    Raises:
        ValueError: an empty window or range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        low: float,
        high: float,
        to: Sequence[float] = (0.0, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not (low < high and to[0] < to[1]):
            raise ValueError(f"low={low}, high={high}, to={tuple(to)}: expected each to rise")
        self.low, self.high = low, high
        self.divisor = (high - low) / (to[1] - to[0])
        self.zero = low - to[0] * self.divisor  # what becomes 0

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            result = torch.empty_like(d[key], dtype=torch.float32)
            plain(result).copy_(plain(d[key])).clamp_(self.low, self.high).sub_(self.zero).div_(self.divisor)
            d[key] = result
        return d


class ClipStandardized(ClipScaled):
    """Limit to a window, subtract a mean, divide by a standard deviation; float32.

    Args:
        keys: images ``(C, x, y, z)``; they stay as they are, the result is a new tensor.
        intensity: ``low``, ``high``, ``mean`` and ``sd``, as by ``common.data.intensity_of``.
    """

    def __init__(self, keys: KeysCollection, intensity: Mapping[str, Any], allow_missing_keys: bool = False) -> None:
        low, high, mean, sd = (float(intensity[key]) for key in ("low", "high", "mean", "sd"))
        super().__init__(keys, low, high, ((low - mean) / sd, (high - mean) / sd), allow_missing_keys)
