"""Prepare skull-stripped MRI of the brain: mask, intensities, crop (section IV).

Arrays are ``(C, x, y, z)`` with one channel for each modality.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import CropForegroundd, MapTransform
from monai.utils import ensure_tuple_rep
from scipy import ndimage

from ...errors import InputError
from ...tensors import as_tensor, source_of
from ...transforms.intensity import without_hot_voxels

BACKGROUND_SHARE = 0.9  # of the voxels on the edges; a value with this share is the background even if scattered
SMALLEST_SHARE = 0.05  # of the voxels on the edges that a constant background covers
NOISE_FACTOR = 6.6  # standard deviations of the noise
SMALLEST_CONTRAST = 10.0  # standard deviations of the noise, median difference of the brain from the background
SMALLEST_BRAIN = 0.02  # share of the volume
ROUNDING = 1e-6  # relative to the background's value; resampling a constant leaves such differences
SMALLEST_DEVIATION = 1e-8


def brain_mask(image: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Return where any modality differs from its background, bool ``(x, y, z)``.

    The twelve edges of the volume show the background of a modality: the brain is round, so even the tightest box
    around it and a slab of a few slices have nearly all of their edges outside it.

    - A constant background is one identical value, zero or not, in long runs on at least a twentieth of the edges. Each
      voxel with another value is brain. For zeros, as skull-stripping writes them, the mask is exactly "not zero in any
      modality".
    - Otherwise the background is noise around the shortest interval that holds half of the voxels on the edges. The
      voxels beyond 6.6 standard deviations of it, in any noisy modality, are candidates. Their largest connected
      component with its holes filled is brain.

    The brain may be darker than its background, for example after an earlier normalisation. A skull that was not
    stripped counts as brain.

    Args:
        image: ``(C, x, y, z)``.

    Raises:
        InputError: no brain was found, or the background of a modality is neither constant nor noise, as in a crop from
            within the brain.
    """
    image = torch.as_tensor(image)
    channels = as_tensor(image)
    mask = torch.zeros_like(channels[0], dtype=torch.bool)
    in_noise = mask.clone()
    for number, channel in enumerate(channels):
        lines = _edges(channel)
        constant = _constant_background(lines)
        if constant is not None:
            mask |= _differs(channel, constant, ROUNDING * abs(constant))
            continue
        centre, deviation = _noise(torch.cat(lines).double())
        seen = _differs(channel, centre, NOISE_FACTOR * deviation + ROUNDING * abs(centre))
        contrast = float((channel[seen].double() - centre).abs().median()) if seen.any() else 0.0
        if seen.sum() < SMALLEST_BRAIN * seen.numel() or contrast < SMALLEST_CONTRAST * deviation:
            raise InputError(
                f"{source_of(image, 'image')}: channel {number}: no brain found: the edges of the volume hold neither "
                f"one value nor noise alone (mean {centre:g}, standard deviation {deviation:g}); give a skull-stripped "
                "volume with background around the brain"
            )
        in_noise |= seen
    if in_noise.any():
        mask |= torch.as_tensor(_solid(in_noise.cpu().numpy()), device=mask.device)
    return mask


def _edges(channel: torch.Tensor) -> list[torch.Tensor]:
    """Return the twelve edges of a volume, each ``(n,)``."""
    return [channel.movedim(axis, 2)[first, second] for axis in range(3) for first in (0, -1) for second in (0, -1)]


def _constant_background(lines: Sequence[torch.Tensor]) -> float | None:
    """Return the value of a constant background on the edges, or None if it is not constant.

    Rounded noise has many equal values too, but in it two neighbours differ as often as any two voxels.
    """
    values, counts = torch.cat(list(lines)).unique(return_counts=True)
    value = values[counts.argmax()]
    near = ROUNDING * abs(float(value))
    equal = [(line.double() - float(value)).abs() <= near for line in lines]
    share = float(torch.cat(equal).double().mean())
    if share >= BACKGROUND_SHARE:
        return float(value)
    pairs = torch.cat([line[:-1] for line in equal])
    changes = float((pairs & ~torch.cat([line[1:] for line in equal])).sum() / pairs.sum().clamp(min=1))
    return float(value) if share >= SMALLEST_SHARE and changes <= (1 - share) / 2 else None


def _noise(edges: torch.Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the noise in the voxels on the edges, ``(n,)``; it fills at least half."""
    ordered = edges.sort().values
    half = len(ordered) // 2
    widths = ordered[half:] - ordered[: len(ordered) - half]
    first = int(widths.argmin())
    centre = float((ordered[first] + ordered[first + half]) / 2)
    steps = ordered.unique().diff()
    deviation = max(float(widths[first]) / 1.349, float(steps.min()) if len(steps) else 0.0)
    inside = ordered[(ordered - centre).abs() <= NOISE_FACTOR * deviation]
    return float(inside.mean()), float(inside.std())


def _differs(channel: torch.Tensor, value: float, margin: float) -> torch.Tensor:
    return (channel > value + margin) | (channel < value - margin)


class NormalizeBraind(MapTransform):
    """Normalise each modality to zero mean and unit variance over the brain, and set the background to 0.

    The brain is :func:`brain_mask`, which returns the same mask for the result. Damaged voxels are corrected by
    :func:`~common.transforms.intensity.without_hot_voxels` first.

    Args:
        keys: images ``(C, x, y, z)``.

    Raises:
        InputError: no brain was found, or a modality is constant in it.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            brain = _brain(image, str(key))
            normalised = torch.zeros_like(image, dtype=torch.float32)
            for c, channel in enumerate(as_tensor(image)):
                name = f"{source_of(image, key)}: channel {c}"
                values = without_hot_voxels(channel, name)[brain]
                deviation, mean = torch.std_mean(values.double(), correction=0)
                if deviation == 0:
                    raise InputError(
                        f"{name} has no contrast: every voxel of the brain is {float(values[0]):g}; give the scan of "
                        "this modality"
                    )
                as_tensor(normalised)[c][brain] = ((values - mean) / deviation.clamp(min=SMALLEST_DEVIATION)).float()
            d[key] = normalised
        return d


class CropBraind(CropForegroundd):
    """Crop to the bounding box of the brain, enlarged to sizes that the network accepts.

    Voxels outside the volume are 0, which is the background after :class:`NormalizeBraind` and in label maps.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        image_key: key of the image that :func:`brain_mask` gets.
        divisor: sizes are multiples of this number, or of one number for each axis.
        margin: voxels around the brain, one number or one for each axis.

    Raises:
        InputError: no brain was found.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        divisor: int | Sequence[int] = 8,
        margin: int | Sequence[int] = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            image_key,
            select_fn=partial(_brain_channel, key=image_key),
            margin=margin,
            allow_smaller=True,
            k_divisible=divisor,
            start_coord_key=None,
            end_coord_key=None,
            allow_missing_keys=allow_missing_keys,
        )
        self.divisor = ensure_tuple_rep(divisor, 3)
        self.margin = ensure_tuple_rep(margin, 3)

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the largest shape of the box, see :mod:`common.transforms`: no brain is larger than the scan."""
        largest = (-(-(n + 2 * m) // d) * d for n, m, d in zip(shape, self.margin, self.divisor))
        return tuple(largest), spacing


def _solid(mask: np.ndarray) -> np.ndarray:
    """Return the largest 6-connected component with its holes filled."""
    largest = cc3d.largest_k(mask, k=1, connectivity=6) > 0
    outside, _ = ndimage.label(np.pad(~largest, 1, constant_values=True))
    return outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0]


def _brain(image: torch.Tensor, key: str) -> torch.Tensor:
    brain = brain_mask(image)
    if not brain.any():
        raise InputError(
            f"{source_of(image, key)}: no brain found: every voxel equals the background at the edges of the volume; "
            "give a skull-stripped scan of the brain"
        )
    return brain


def _brain_channel(image: torch.Tensor, key: str) -> torch.Tensor:
    return _brain(image, key)[None]
