"""Checks of intensities, and Hounsfield units to a network's input.

Scaling holds one volume beside its input, the result; MONAI's ``ScaleIntensityRanged`` holds three at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..errors import InputError
from ..tensors import as_tensor, source_of

SAMPLE = 300_000  # voxels that show how the values of a volume are distributed
FEW_VALUES = 16  # different values, of which no scan has so few
LARGEST_HU = 32768  # beyond, a value is damaged
PADDING_HU = -1500  # below, a value is padding outside the scanner's field of view
FAT_AND_LUNG_HU = (-900, -50)  # no part of a body is without fat, lung or a border with air
SOFT_TISSUE_HU = (-200, 250)
WITHOUT_INTERCEPT = (850, 1250)  # where soft tissue lies in a CT whose intercept of -1024 was not applied
HOT_FACTOR = 20.0  # times the 98th percentile of the distances from the median; scans reach 5

logger = logging.getLogger(__name__)


class CheckHounsfieldd(MapTransform):
    """Check that a volume is a CT in Hounsfield units, from the distribution of its values without padding.

    An MRI, a label map, a probability map or a CT without its intercept is refused; a network for CT would make some
    mask of it. Values beyond +-32768 are damage: they are limited to that, with a warning.

    Args:
        keys: images ``(C, x, y, z)``, as read.

    Raises:
        InputError: fewer than 1 % of the voxels have values of fat or lung, or fewer than 3 % those of soft tissue;
            many have values about 1000 or above 2000; or there are 16 different values or fewer.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = as_tensor(d[key])
            if volume.dtype == torch.uint16:  # of which torch has no minimum
                volume = volume.int()
            lowest, highest = (float(value) for value in volume.aminmax())
            name = source_of(d[key], key)
            fault = _not_hounsfield(_sample(volume))
            if fault is not None:
                raise InputError(
                    f"{name}: values from {lowest:g} to {highest:g}, expected a CT in Hounsfield units: {fault}; "
                    "give a CT, with its rescale intercept applied"
                )
            if max(-lowest, highest) > LARGEST_HU:
                beyond = int((volume.abs() > LARGEST_HU).sum())
                logger.warning(
                    "%s: %d voxels beyond +-%d HU, up to %g; limited to that", name, beyond, LARGEST_HU, highest
                )
                d[key] = d[key].clamp(-LARGEST_HU, LARGEST_HU)
        return d


def _not_hounsfield(values: np.ndarray) -> str | None:
    """Why values cannot be those of a CT, or None."""
    if len(np.unique(values)) <= FEW_VALUES:
        return f"{len(np.unique(values))} different values, as in a label map"
    values = values[(values > PADDING_HU) & (values <= LARGEST_HU)]

    def share(low: float, high: float) -> float:
        return float(((values > low) & (values < high)).mean()) if len(values) else 0.0

    if (part := share(2000, LARGEST_HU)) > 0.05:
        return f"{part:.0%} of the voxels are above 2000, where only metal is"
    if (part := share(*FAT_AND_LUNG_HU)) < 0.01:
        return f"{part:.1%} of the voxels are between -900 and -50, where fat and lung are"
    if (soft := share(*SOFT_TISSUE_HU)) < 0.03:
        return f"{soft:.1%} of the voxels are between -200 and 250, where soft tissue is"
    if (part := share(*WITHOUT_INTERCEPT)) > 0.25 * soft:
        return f"{part:.0%} of the voxels are between 850 and 1250, where soft tissue is without the intercept"
    return None


class CheckMRId(MapTransform):
    """Check that each channel can be MRI, as far as its values tell.

    Args:
        keys: images ``(C, x, y, z)``, as read.

    Raises:
        InputError: a channel is a CT in Hounsfield units, a label map or a probability map.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            for number, channel in enumerate(as_tensor(d[key])):
                values = _sample(channel)
                fault = _not_mri(values)
                if fault is not None:
                    raise InputError(
                        f"{source_of(d[key], key)}: channel {number}: values from {values.min():g} to "
                        f"{values.max():g}, expected MRI: {fault}"
                    )
        return d


def _not_mri(values: np.ndarray) -> str | None:
    """Why values cannot be those of MRI, or None."""
    if len(np.unique(values)) <= FEW_VALUES:
        return f"{len(np.unique(values))} different values, as in a label map"
    above = values[values > 0.01]
    if values.min() >= 0 and values.max() <= 1 and len(above) and float((above > 0.99).mean()) > 0.1:
        return "many values are 1, as in a probability map"
    air = float(((values > -1100) & (values < -900)).mean())
    if air > 0.01 and values.min() > -LARGEST_HU and _not_hounsfield(values) is None:
        return f"{air:.0%} of the voxels are air in Hounsfield units, as in a CT"
    return None


def without_hot_voxels(volume: Tensor, name: str) -> Tensor:
    """Return a channel of MRI whose damaged voxels have the nearest value of the others, with a warning.

    Damaged are values that lie farther from the median than 20 times the 98th percentile does; a block of 1e30 would
    leave nothing of the contrast after a division by the standard deviation. Without any, it is the volume itself.

    Args:
        volume: ``(x, y, z)``.
        name: what it is, for the warning.
    """
    values = _sample(volume)
    median = float(np.median(values))
    distances = np.abs(values - median)
    distances = distances[distances > 0]
    if not len(distances):
        return volume
    usual, large = np.quantile(distances, (0.5, 0.98))
    reach = HOT_FACTOR * min(float(large), 1000 * float(usual))
    hot = (volume > median + reach) | (volume < median - reach)
    if not hot.any():
        return volume
    kept = volume[~hot]
    logger.warning(
        "%s: %d voxels lie far beyond all others, such as %g; limited to the others' range, %g to %g",
        name, int(hot.sum()), float(volume[hot][0]), float(kept.min()), float(kept.max()),
    )  # fmt: skip
    return volume.clamp(kept.min(), kept.max())


def _sample(volume: Tensor) -> np.ndarray:
    """Values of a volume, all or as many as :data:`SAMPLE` drawn uniformly, float64."""
    array = as_tensor(volume).cpu().numpy()
    if array.size > SAMPLE:
        rng = np.random.default_rng(0)
        array = array[tuple(rng.integers(n, size=SAMPLE) for n in array.shape)]
    return array.ravel().astype(np.float64)


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
            as_tensor(result).copy_(as_tensor(d[key])).clamp_(self.low, self.high).sub_(self.zero).div_(self.divisor)
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
