"""Transforms for skull-stripped MRI of the brain with gliomas: mask, intensities, box, label codes.

Arrays are ``(C, x, y, z)``, a channel for each modality. Inside a network the classes are 0 outside the brain, 1
necrosis and non-enhancing tumour, 2 oedema, 3 enhancing tumour, 4 other brain.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import CropForegroundd, MapTransform
from monai.utils import ensure_tuple_rep
from scipy import ndimage

from ...errors import InputError
from ...labels import check_labels, classes_of_values, read_label_map, warn_of_other_names
from ...tensors import as_tensor, source_of
from ...transforms.intensity import without_hot_voxels

TUMOUR, CORE, OTHER_BRAIN = (1, 2, 3), (1, 3), 4  # classes

# Values in the files of each code, and their classes; 0 is everything else.
LABEL_CODES: Mapping[str, Mapping[int, int]] = {
    "brats": {1: 1, 2: 2, 4: 3},  # BraTS 2017 to 2021
    "brats2015": {1: 1, 2: 2, 3: 1, 4: 3},  # BraTS 2012 to 2016: 1 necrosis, 3 non-enhancing
    "brats2023": {1: 1, 2: 2, 3: 3},
    "msd_task01": {1: 2, 2: 1, 3: 3},  # Medical Segmentation Decathlon: 1 oedema, 2 non-enhancing
}

BACKGROUND_SHARE = 0.9  # of the edges' voxels: one value that has so many is the background, scattered or not
SMALLEST_SHARE = 0.05  # of the edges' voxels that a constant background covers
NOISE_FACTOR = 6.6  # standard deviations of the noise
SMALLEST_CONTRAST = 10.0  # the brain's median from the background, in standard deviations of the noise
SMALLEST_BRAIN = 0.02  # of the volume
ROUNDING = 1e-6  # of the background's value, for what resampling a constant leaves
SMALLEST_DEVIATION = 1e-8


def brain_mask(image: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Return where any modality differs from its background, as a bool ``(x, y, z)``.

    The twelve edges of the volume show a modality's background. The brain is round, so the tightest box around it and
    a slab of some slices leave nearly all of their edges free.

    - A constant background is one identical value, zero or not, on a twentieth of the edges or more, in long runs.
      Brain is every voxel with another value. With zeros, as skull-stripping leaves them, it is "not zero in any
      modality", unchanged.
    - Otherwise the background is noise, around the shortest interval that holds half of the edges. Brain is the largest
      connected part of what the noisy modalities show together beyond 6.6 standard deviations, its holes filled.

    The brain may be darker than its background, as it is after an earlier normalisation. Where the skull is still
    there, it counts as brain.

    Args:
        image: ``(C, x, y, z)``.

    Raises:
        InputError: there is no brain, or the background of a modality is neither constant nor noise, as in a crop from
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
                f"{source_of(image, 'image')}: channel {number}: no brain can be told from the background: the edges "
                f"of the volume hold neither one value nor noise alone (mean {centre:g}, standard deviation "
                f"{deviation:g}); give a skull-stripped volume with some background around the brain"
            )
        in_noise |= seen
    if in_noise.any():
        mask |= torch.as_tensor(_solid(in_noise.cpu().numpy()), device=mask.device)
    return mask


def _edges(channel: torch.Tensor) -> list[torch.Tensor]:
    """The twelve edges of a volume, ``(n,)`` each."""
    return [channel.movedim(axis, 2)[first, second] for axis in range(3) for first in (0, -1) for second in (0, -1)]


def _constant_background(lines: Sequence[torch.Tensor]) -> float | None:
    """The value of a constant background on the edges, or None where there is none.

    Also the values of rounded noise are often equal, but its neighbours differ as often as any other two voxels do.
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
    """The mean and standard deviation of the noise that more than half of the edges' voxels hold, ``(n,)``."""
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
    """Scale each modality to zero mean and unit variance over the brain's voxels, and set what is outside to 0.

    The brain is :func:`brain_mask`, which gives the same mask for the result. Damaged voxels count as
    :func:`~common.transforms.intensity.without_hot_voxels` leaves them.

    Args:
        keys: images ``(C, x, y, z)``.

    Raises:
        InputError: there is no brain, or a modality is constant in it.
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
                        f"{name} has no contrast: every voxel of the brain is {float(values[0]):g}; give the modality "
                        "that the channel stands for"
                    )
                as_tensor(normalised)[c][brain] = ((values - mean) / deviation.clamp(min=SMALLEST_DEVIATION)).float()
            d[key] = normalised
        return d


class CropBraind(CropForegroundd):
    """Crop to the brain's bounding box, enlarged to sizes that a network takes.

    What lies outside the volume is filled with 0, the background after :class:`NormalizeBraind` and of label maps.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        source_key: the image whose :func:`brain_mask` is taken.
        divisor: sizes are multiples of it, along all axes or each.
        margin: voxels around the brain, along all axes or each.

    Raises:
        InputError: there is no brain.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str = "image",
        divisor: int | Sequence[int] = 8,
        margin: int | Sequence[int] = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            source_key,
            select_fn=partial(_brain_channel, key=source_key),
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


class BratsLabelsd(MapTransform):
    """Convert label maps of public glioma data to the classes 0 to 4, each case by its own code.

    A case names its code under ``code_key``, as the lists of ``python -m common datalist`` do; a case that does not is
    taken to have ``code``. Tumour that was drawn outside the brain stays tumour. Values within 0.01 of an integer are
    that integer.

    Args:
        keys: label maps ``(1, x, y, z)`` on the image's grid.
        image_key: the image, whose :func:`brain_mask` tells class 4 from class 0.
        code: one of ``LABEL_CODES``; None for the values of ``labels``.
        code_key: where a case names its code.
        labels: names and values of the classes 1, 2 and 3; ``brats`` unless given.
        label_map: values in the file to values of ``labels``; if it is not empty, no code counts.
        dataset_dir: folder with the data list, whose names of the values are compared with ``labels``.

    Raises:
        InputError: an unknown code, labels that are not three, a map that is not valid, or a value that the code does
            not have.
        ValueError: a map without labels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        code: str | None = "brats",
        code_key: str = "label_code",
        allow_missing_keys: bool = False,
        labels: Mapping[str, int] | None = None,
        label_map: Any = (),
        dataset_dir: str | Path | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.code = code
        self.code_key = code_key
        self.labels = None if labels is None else check_labels(labels, len(TUMOUR))
        self.mapped: Mapping[int, int] = {}
        if label_map:
            if self.labels is None:
                raise ValueError(f"label_map {label_map} without labels, to the values of which it maps")
            self.mapped = classes_of_values(self.labels, read_label_map(label_map, self.labels))
        if dataset_dir is not None and self.labels is not None:
            values = [0, *self.labels.values()]
            classes_of = self.mapped or _classes_of(code, self.labels)
            warn_of_other_names(dataset_dir, self.labels, {v: values[index] for v, index in classes_of.items()})

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        code: Any = d.get(self.code_key, self.code)
        classes_of = self.mapped or _classes_of(code, self.labels)
        brain = brain_mask(d[self.image_key])
        for key in self.key_iterator(d):
            label = as_tensor(d[key])
            classes = torch.zeros_like(d[key], dtype=torch.float32)
            as_tensor(classes)[:, brain.to(label.device)] = OTHER_BRAIN
            known = label.abs() <= 0.01
            for value, index in classes_of.items():
                here = (label - value).abs() <= 0.01
                if index:
                    as_tensor(classes)[here] = index
                known |= here
            if not known.all():
                shown = ", ".join(f"{v:g}" for v in label[~known].unique().tolist()[:6])
                coded = not self.mapped and (code is not None or self.labels is None)
                whose = f"labels of code {code}" if coded else "its labels"
                raise InputError(
                    f"{source_of(d[key], key)}: values {shown}, but {whose} are 0, "
                    f"{', '.join(str(v) for v in classes_of if v)}; list the data with the layout that it has "
                    f"(label_code is one of {', '.join(LABEL_CODES)}), or map its values with --label_map"
                )
            d[key] = classes
        return d


def to_brats(
    classes: torch.Tensor, code: str | None = "brats", labels: Mapping[str, int] | None = None
) -> torch.Tensor:
    """Return classes 0 to 4 as the labels of a code, both kinds of non-tumour 0; the inverse of :class:`BratsLabelsd`.

    Args:
        classes: of any shape.
        code: one of ``LABEL_CODES``; None for the values of ``labels``.
        labels: names and values of the classes 1, 2 and 3.

    Raises:
        InputError: an unknown code, or labels that are not three.
    """
    result = torch.zeros_like(classes)
    for value, index in reversed(list(_classes_of(code, labels).items())):  # of two values for a class, the first
        as_tensor(result)[as_tensor(classes) == index] = value
    return result


class ToBratsd(MapTransform):
    """Apply :func:`to_brats` to each entry.

    Args:
        keys: maps of the classes 0 to 4.
        code: one of ``LABEL_CODES``; None for the values of ``labels``.
        labels: names and values of the classes 1, 2 and 3.

    Raises:
        InputError: an unknown code, or labels that are not three.
    """

    def __init__(
        self,
        keys: KeysCollection,
        code: str | None = "brats",
        allow_missing_keys: bool = False,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.code = code
        self.labels = labels
        _classes_of(code, labels)  # a mistake is reported before the first case

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = to_brats(d[key], self.code, self.labels)
        return d


def _solid(mask: np.ndarray) -> np.ndarray:
    """The largest connected part, by faces, without holes."""
    largest = cc3d.largest_k(mask, k=1, connectivity=6) > 0
    outside, _ = ndimage.label(np.pad(~largest, 1, constant_values=True))
    return outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0]


def _brain(image: torch.Tensor, key: str) -> torch.Tensor:
    brain = brain_mask(image)
    if not brain.any():
        raise InputError(
            f"{source_of(image, key)}: no brain: no voxel differs from the background at the edges of the volume"
        )
    return brain


def _brain_channel(image: torch.Tensor, key: str) -> torch.Tensor:
    return _brain(image, key)[None]


def _classes_of(code: str | None, labels: Mapping[str, int] | None = None) -> Mapping[int, int]:
    checked = None if labels is None else check_labels(labels, len(TUMOUR))
    if code is None and checked is not None:
        return {value: index for index, value in enumerate(checked.values(), start=1)}
    if code is None or code not in LABEL_CODES:
        raise InputError(f"label_code {code}: expected one of {', '.join(LABEL_CODES)}")
    return LABEL_CODES[code]
