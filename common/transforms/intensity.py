"""Check intensities, and scale Hounsfield units to a network's input.

Scaling allocates one volume, its result; MONAI's ``ScaleIntensityRanged`` holds three at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..errors import InputError
from ..tensors import as_tensor, source_of

SAMPLE = 300_000  # number of voxels that the distribution of values is estimated from
FEW_VALUES = 16  # a volume with so few different values is not a scan
LARGEST_HU = 32768  # a value beyond +-32768 HU is damaged
PADDING_HU = -1500  # a value below is padding outside the scanner's field of view
FAT_AND_LUNG_HU = (-900, -50)  # every part of a body contains fat, lung or a border with air
SOFT_TISSUE_HU = (-200, 250)
WITHOUT_INTERCEPT = (850, 1250)  # soft tissue in a CT if the intercept of -1024 was not applied
HOT_FACTOR = 20.0  # multiple of the 98th percentile of the distances from the median; real scans reach 5

A_LABEL = "as in a label map; it looks like a label: take it out of the folder of scans"
GIVE_CT = "give a CT with its rescale intercept applied"

logger = logging.getLogger(__name__)


class CheckHounsfieldd(MapTransform):
    """Check that a volume is a CT in Hounsfield units, by the distribution of its values without padding.

    A network for CT would segment something in any volume. So an MRI, a label map, a probability map and a CT without
    its rescale intercept are refused. Damaged values beyond +-32768 HU are clipped to that range, with a warning.

    Args:
        keys: images ``(C, x, y, z)``, with the values of the file.

    Raises:
        InputError: fewer than 1 % of the voxels have values of fat or lung; fewer than 3 % have values of soft tissue;
            more than 5 % are above 2000; the voxels between 850 and 1250 are more than a quarter of those of soft
            tissue; or there are at most 16 different values.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            volume = as_tensor(d[key])
            if volume.dtype == torch.uint16:  # torch cannot compute its minimum
                volume = volume.int()
            lowest, highest = (float(value) for value in volume.aminmax())
            name = source_of(d[key], key)
            fault = _not_hounsfield(_sample(volume))
            if fault is not None:
                raise InputError(
                    f"{name}: values from {lowest:g} to {highest:g}, expected a CT in Hounsfield units: {fault}"
                )
            if max(-lowest, highest) > LARGEST_HU:
                beyond = int((volume.abs() > LARGEST_HU).sum())
                logger.warning(
                    "%s: %d voxels beyond +-%d HU, up to %g; limited to +-%d HU",
                    name,
                    beyond,
                    LARGEST_HU,
                    highest,
                    LARGEST_HU,
                )
                d[key] = d[key].clamp(-LARGEST_HU, LARGEST_HU)
        return d


def _not_hounsfield(values: np.ndarray) -> str | None:
    """Return why values cannot come from a CT in Hounsfield units and what to do, or None if they can."""
    if (different := _different(values)) <= FEW_VALUES:
        return f"{different} different values, {A_LABEL}"
    values = values[(values > PADDING_HU) & (values <= LARGEST_HU)]

    def share(low: float, high: float) -> float:
        return float(((values > low) & (values < high)).mean()) if len(values) else 0.0

    if (part := share(2000, LARGEST_HU)) > 0.05:
        return f"{part:.0%} of the voxels are above 2000, where only metal is; {GIVE_CT}"
    if (part := share(*FAT_AND_LUNG_HU)) < 0.01:
        return (
            f"{part:.1%} of the voxels are between -900 and -50, where fat and lung are; this may be an MRI; {GIVE_CT}"
        )
    if (soft := share(*SOFT_TISSUE_HU)) < 0.03:
        return f"{soft:.1%} of the voxels are between -200 and 250, where soft tissue is; {GIVE_CT}"
    if (part := share(*WITHOUT_INTERCEPT)) > 0.25 * soft:
        return f"{part:.0%} of the voxels are between 850 and 1250, where soft tissue is without intercept; {GIVE_CT}"
    return None


class CheckMRId(MapTransform):
    """Check that each channel can be MRI, by the distribution of its values.

    Damaged values far beyond all others are clipped, with a warning; see :func:`without_hot_voxels`.

    Args:
        keys: images ``(C, x, y, z)``, with the values of the file.

    Raises:
        InputError: a channel looks like a CT in Hounsfield units, a label map or a probability map.
    """

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            source = source_of(d[key], key)
            for number, channel in enumerate(as_tensor(d[key])):
                name = f"{source}: channel {number}"
                values = _sample(channel)
                fault = _not_mri(values)
                if fault is not None:
                    raise InputError(f"{name}: values from {values.min():g} to {values.max():g}, expected MRI: {fault}")
                volume = channel.int() if channel.dtype == torch.uint16 else channel  # torch cannot clip uint16
                limited = without_hot_voxels(volume, name)
                if limited is not volume:
                    d[key] = d[key].clone()
                    as_tensor(d[key])[number] = limited
        return d


def _not_mri(values: np.ndarray) -> str | None:
    """Return why values cannot come from MRI and what to do, or None if they can."""
    if (different := _different(values)) <= FEW_VALUES:
        return f"{different} different values, {A_LABEL}"
    above = values[values > 0.01]
    if values.min() >= 0 and values.max() <= 1 and len(above) and float((above > 0.99).mean()) > 0.1:
        return "many values are 1, as in a probability map; give the scan itself"
    air = float(((values > -1100) & (values < -900)).mean())
    if air > 0.01 and values.min() > -LARGEST_HU and _not_hounsfield(values) is None:
        return f"{air:.0%} of the voxels are air in Hounsfield units, as in a CT; give an MRI"
    return None


def _different(values: np.ndarray) -> int:
    """Return the number of different values, or one above :data:`FEW_VALUES` if the first thousand have as many."""
    first = len(np.unique(values[:1000]))
    return first if first > FEW_VALUES else len(np.unique(values))


def without_hot_voxels(volume: Tensor, name: str) -> Tensor:
    """Return a channel of MRI with its damaged voxels clipped to the range of the others, with a warning.

    A value is damaged if its distance from the median is more than 20 times the 98th percentile of these distances. A
    block of 1e30 would leave no contrast after a division by the standard deviation. Without damaged voxels, the volume
    itself is returned.

    Args:
        volume: channel ``(x, y, z)``.
        name: name of the channel, for the warning.
    """
    values = _sample(volume)
    median = float(np.median(values))
    distances = np.abs(values - median)
    distances = distances[distances > 0]
    if not len(distances):
        return volume
    usual, large = np.quantile(distances, (0.5, 0.98))
    reach = HOT_FACTOR * min(float(large), 1000 * float(usual))
    lowest, highest = volume.aminmax()
    if not (highest > median + reach or lowest < median - reach):
        return volume
    hot = (volume > median + reach) | (volume < median - reach)
    kept = volume[~hot]
    logger.warning(
        "%s: %d voxels lie far beyond all others, such as %g; limited to the others' range, %g to %g",
        name, int(hot.sum()), float(volume[hot][0]), float(kept.min()), float(kept.max()),
    )  # fmt: skip
    return volume.clamp(kept.min(), kept.max())


def _sample(volume: Tensor) -> np.ndarray:
    """Return the values of a volume, float64: all of them, or :data:`SAMPLE` of them drawn uniformly."""
    array = as_tensor(volume).cpu().numpy()
    if array.size > SAMPLE:
        axes = tuple(np.argsort(array.strides, kind="stable")[::-1].tolist())
        array = array.transpose(axes).reshape(-1)[_places(array.shape, axes)]
    return array.ravel().astype(np.float64)


@lru_cache(maxsize=1)  # the channels of a scan have one shape
def _places(shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    """Return :data:`SAMPLE` places drawn uniformly in a volume, counted in the order of its memory.

    Args:
        shape: size of the volume along each axis.
        axes: its axes, that with the largest stride first.
    """
    rng = np.random.default_rng(0)
    drawn = [rng.integers(n, size=SAMPLE) for n in shape]
    return np.ravel_multi_index([drawn[axis] for axis in axes], [shape[axis] for axis in axes])


class ClipScaled(MapTransform):
    """Clip to an intensity window, and map the window linearly to another range, in float32.

    Args:
        keys: images ``(C, x, y, z)``; the input stays unchanged, the result is a new tensor.
        low: lower end of the window.
        high: upper end of the window.
        to: new values of ``low`` and ``high``.

    Raises:
        ValueError: the window or the range is empty.
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
            raise ValueError(f"low={low}, high={high}, to={tuple(to)}; expected low < high and to[0] < to[1]")
        self.low, self.high = low, high
        self.divisor = (high - low) / (to[1] - to[0])
        self.zero = low - to[0] * self.divisor  # the intensity that is mapped to 0

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            result = torch.empty_like(d[key], dtype=torch.float32)
            as_tensor(result).copy_(as_tensor(d[key])).clamp_(self.low, self.high).sub_(self.zero).div_(self.divisor)
            d[key] = result
        return d


class ClipStandardized(ClipScaled):
    """Clip to an intensity window, subtract a mean and divide by a standard deviation, in float32.

    Args:
        keys: images ``(C, x, y, z)``; the input stays unchanged, the result is a new tensor.
        intensity: ``low``, ``high``, ``mean`` and ``sd``, as ``common.data.intensity_of`` returns them.
    """

    def __init__(self, keys: KeysCollection, intensity: Mapping[str, Any], allow_missing_keys: bool = False) -> None:
        low, high, mean, sd = (float(intensity[key]) for key in ("low", "high", "mean", "sd"))
        super().__init__(keys, low, high, ((low - mean) / sd, (high - mean) / sd), allow_missing_keys)
        self.intensity = dict(intensity)
