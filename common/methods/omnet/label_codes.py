"""Convert the label codes of public glioma data to the classes of the network, and back.

The classes are 0 outside the brain, 1 necrosis and non-enhancing tumour, 2 oedema, 3 enhancing tumour, 4 other brain.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ...errors import InputError
from ...labels import check_labels, classes_of_values, read_label_map, warn_of_other_names
from ...tensors import as_tensor, source_of
from .brain import brain_mask
from .classes import OTHER_BRAIN, TUMOUR

# Values in the files of each code -> classes; 0 is everything else.
LABEL_CODES: Mapping[str, Mapping[int, int]] = {
    "brats": {1: 1, 2: 2, 4: 3},  # BraTS 2017 to 2021
    "brats2015": {1: 1, 2: 2, 3: 1, 4: 3},  # BraTS 2012 to 2016: 1 necrosis, 3 non-enhancing
    "brats2023": {1: 1, 2: 2, 3: 3},
    "msd_task01": {1: 2, 2: 1, 3: 3},  # Medical Segmentation Decathlon: 1 oedema, 2 non-enhancing
}


class BratsLabelsd(MapTransform):
    """Convert label maps of public glioma data to the classes 0 to 4, each case by its own code.

    A case names its code under ``code_key``, as the lists of ``python -m common datalist`` do; otherwise ``code``
    applies. Tumour that was drawn outside the brain stays tumour. A value within 0.01 of an integer counts as this
    integer.

    Args:
        keys: label maps ``(1, x, y, z)`` on the grid of the image.
        image_key: key of the image; its :func:`brain_mask` separates class 4 from class 0.
        code: one of ``LABEL_CODES``; None to use the values of ``labels``.
        code_key: key under which a case names its code.
        labels: names and values of the classes 1, 2 and 3; None to use ``code``.
        label_map: values in the file -> values of ``labels``; if it is not empty, it replaces the code.
        dataset_dir: folder of the data list; its names of the values are compared with ``labels``.

    Raises:
        InputError: the code is unknown, there are not three labels, the map is not valid, or the file holds a value
            that the code does not have.
        ValueError: ``label_map`` is given without ``labels``.
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
                raise ValueError(f"label_map {label_map} needs labels, which name the values that it maps to")
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
                known_by = f"label_code {code} has" if coded else "labels and label_map have"
                raise InputError(
                    f"{source_of(d[key], key)}: found the values {shown}, but {known_by} 0, "
                    f"{', '.join(str(v) for v in classes_of if v)}; list the data with its own layout (label_code is "
                    f"one of {', '.join(LABEL_CODES)}), or map the values with --label_map"
                )
            d[key] = classes
        return d


def to_brats(
    classes: torch.Tensor, code: str | None = "brats", labels: Mapping[str, int] | None = None
) -> torch.Tensor:
    """Return the labels of a code for the classes 0 to 4, with 0 for classes 0 and 4; inverts :class:`BratsLabelsd`.

    Args:
        classes: classes 0 to 4, of any shape.
        code: one of ``LABEL_CODES``; None to use the values of ``labels``.
        labels: names and values of the classes 1, 2 and 3.

    Raises:
        InputError: the code is unknown, or there are not three labels.
    """
    result = torch.zeros_like(classes)
    for value, index in reversed(list(_classes_of(code, labels).items())):  # the first of two values for a class wins
        as_tensor(result)[as_tensor(classes) == index] = value
    return result


class ToBratsd(MapTransform):
    """Apply :func:`to_brats` to each entry.

    Args:
        keys: maps of the classes 0 to 4.
        code: one of ``LABEL_CODES``; None to use the values of ``labels``.
        labels: names and values of the classes 1, 2 and 3.

    Raises:
        InputError: the code is unknown, or there are not three labels.
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
        _classes_of(code, labels)  # reports a mistake before the first case

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = to_brats(d[key], self.code, self.labels)
        return d


def _classes_of(code: str | None, labels: Mapping[str, int] | None = None) -> Mapping[int, int]:
    checked = None if labels is None else check_labels(labels, len(TUMOUR))
    if code is None and checked is not None:
        return {value: index for index, value in enumerate(checked.values(), start=1)}
    if code is None or code not in LABEL_CODES:
        raise InputError(f"label_code {code}: expected one of {', '.join(LABEL_CODES)}")
    return LABEL_CODES[code]
