"""Transforms for skull-stripped MRI of the brain with gliomas: mask, intensities, box, label codes.

Arrays are ``(C, x, y, z)``, a channel for each modality. Inside a network the classes are 0 outside the brain, 1
necrosis and non-enhancing tumour, 2 oedema, 3 enhancing tumour, 4 other brain.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import CropForegroundd, MapTransform
from scipy import ndimage

from ..errors import InputError
from ..labels import check_labels, classes_of_values, read_label_map, warn_of_other_names
from ..tensors import plain, source_of

TUMOUR, CORE, OTHER_BRAIN = (1, 2, 3), (1, 3), 4  # classes

# Values in the files of each code, and their classes; 0 is everything else.
LABEL_CODES: Mapping[str, Mapping[int, int]] = {
    "brats": {1: 1, 2: 2, 4: 3},  # BraTS 2017 to 2021
    "brats2015": {1: 1, 2: 2, 3: 1, 4: 3},  # BraTS 2012 to 2016: 1 necrosis, 3 non-enhancing
    "brats2023": {1: 1, 2: 2, 3: 3},
    "msd_task01": {1: 2, 2: 1, 3: 3},  # Medical Segmentation Decathlon: 1 oedema, 2 non-enhancing
}

BACKGROUND_SHARE = 0.9  # of the border's voxels, which set how far the background's values spread
NOISE_FACTOR = 4.0  # times that spread: 6.6 standard deviations of normal noise
ROUNDING = 1e-5  # of the background's value, for what resampling a constant leaves
SMALLEST_DEVIATION = 1e-8


def brain_mask(image: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Where any modality differs from its background, as a bool ``(x, y, z)``.

    A modality's background is the median over the six faces of the volume; it spreads as far from it as nine tenths of
    these voxels do. What lies more than four times as far is brain.

    - A constant background, zero or not, has no spread: brain is every voxel with another value. With zeros, as
      skull-stripping leaves them, it is "not zero in any modality", unchanged.
    - In noise, brain is the largest connected part of what the noisy modalities show together, its holes filled.

    So the brain may cover up to a tenth of the faces, and may be darker than its background, as it is after an earlier
    normalisation. Where the skull is still there, it counts as brain.

    Args:
        image: ``(C, x, y, z)``.
    """
    channels = plain(torch.as_tensor(image))
    mask = torch.zeros_like(channels[0], dtype=torch.bool)
    in_noise = mask.clone()
    for channel in channels:
        faces = [channel.select(axis, end) for axis in range(3) for end in (0, -1)]
        border = torch.cat([face.flatten() for face in faces]).float()
        background = float(border.median())
        spread = float((border - background).abs().kthvalue(math.ceil(BACKGROUND_SHARE * border.numel())).values)
        rounding = ROUNDING * abs(background)
        margin = NOISE_FACTOR * spread + rounding
        seen = (channel > background + margin) | (channel < background - margin)
        (in_noise if spread > rounding else mask).logical_or_(seen)
    if in_noise.any():
        mask |= torch.as_tensor(_solid(in_noise.cpu().numpy()), device=mask.device)
    return mask


class NormalizeBraind(MapTransform):
    """Each modality to zero mean and unit variance over the brain's voxels, 0 outside of it.

    The brain is :func:`brain_mask`, which gives the same mask for the result.

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
            for c, channel in enumerate(plain(image)):
                values = channel[brain]
                deviation, mean = torch.std_mean(values.double(), correction=0)
                if deviation == 0:
                    raise InputError(
                        f"{source_of(image, key)}: channel {c} has no contrast: every voxel of the brain is "
                        f"{float(values[0]):g}; give the modality that the channel stands for"
                    )
                plain(normalised)[c][brain] = ((values - mean) / deviation.clamp(min=SMALLEST_DEVIATION)).float()
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
            label = plain(d[key])
            classes = torch.zeros_like(d[key], dtype=torch.float32)
            plain(classes)[:, brain.to(label.device)] = OTHER_BRAIN
            known = label.abs() <= 0.01
            for value, index in classes_of.items():
                here = (label - value).abs() <= 0.01
                if index:
                    plain(classes)[here] = index
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
        plain(result)[plain(classes) == index] = value
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
            f"{source_of(image, key)}: no brain: no voxel differs from the background at the volume's border"
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
