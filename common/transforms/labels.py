"""Check label maps, and convert their values to classes."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..errors import InputError
from ..geometry import grid_difference, to_ras, turn_onto
from ..labels import check_labels, classes_of_values, read_label_map, suggest_label_map, warn_of_other_names
from ..tensors import affine_of, as_tensor, source_of

logger = logging.getLogger(__name__)


class CheckLabeld(MapTransform):
    """Check that a label map lies on its image's grid, and convert its values to classes 0, 1, 2, ...

    If only the order or the directions of the axes differ, the label's axes are turned to the image's. The result has
    the affine of the image, so that rounding in a header does not lead to two grids.

    A value within 0.01 of an integer counts as this integer, because a mask with a scale factor is read as 0.99999997.
    If there is one label and no ``label_map``, a map of 0 and one positive value, such as 255, is a binary mask. A
    warning names a file of each value if the masks have different values, since these may be different structures.

    Args:
        keys: label maps ``(1, x, y, z)``.
        image_key: key of the image that the label maps belong to.
        num_classes: number of foreground classes, with the values 1, 2, ...; used without ``labels``.
        labels: mapping from names to values. The class of a label is its position, from 1. Without it, values are
            classes.
        label_map: mapping from values in the file to values of ``labels``, see :func:`common.labels.read_label_map`. A
            log line names the first file in which it changes a value.
        count: number of labels that the method segments; None for any number.
        dataset_dir: folder of the data list. A warning names the values that it calls by another name than ``labels``.

    Raises:
        InputError: the label has another grid than the image (see :func:`common.geometry.grid_difference`) or unknown
            values; or ``labels`` or ``label_map`` is invalid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        num_classes: int = 1,
        allow_missing_keys: bool = False,
        labels: Mapping[str, int] | None = None,
        label_map: Any = (),
        count: int | None = None,
        dataset_dir: str | Path | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        numbers = {str(value): value for value in range(1, num_classes + 1)}
        self.labels = numbers if labels is None else check_labels(labels, count)
        self.label_map = read_label_map(label_map, self.labels)
        self.classes = classes_of_values(self.labels, self.label_map)
        self.logged = False
        self.masks: dict[float, str] = {}  # value of binary masks to the first file that has it
        if dataset_dir is not None:
            warn_of_other_names(dataset_dir, self.labels, self.label_map)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            name = source_of(d[key], key)
            label = _on_grid(d[key], image, name)
            classes = self._classes(as_tensor(label), name)
            d[key] = MetaTensor(classes, meta=label.meta) if isinstance(label, MetaTensor) else classes
        return d

    def _classes(self, label: torch.Tensor, name: str) -> torch.Tensor:
        label = label.to(torch.float32)
        rounded = label.round()
        label = torch.where((label - rounded).abs() <= 0.01, rounded, label)
        present = np.unique(label.cpu().numpy()).tolist()
        values = [v for v in present if v != 0]
        binary = len(present) == 2 and len(values) == 1 and values[0] > 0
        if not self.label_map and len(self.labels) == 1 and binary:
            self._compare_masks(name, values[0])
            return (label != 0).to(torch.float32)
        if any(v not in self.classes for v in values):
            shown = ", ".join(f"{v:g}" for v in [0, *values[:6]] if v or 0 in present)
            known = [v for v in self.classes if v]
            expected = ", ".join(map(str, known)) if len(known) < 9 else f"{min(known)} to {max(known)}"
            fix = suggest_label_map(values, self.labels, self.label_map)
            raise InputError(f"{name}: values {shown}, expected 0 and {expected}{fix}")
        self._log_once(name, values)
        result = label.clone()
        for value in values:
            result[label == value] = self.classes[int(value)]
        return result

    def _compare_masks(self, name: str, value: float) -> None:
        """Log a warning for the first binary mask with another value than the masks before."""
        if value in self.masks:
            return
        self.masks[value] = name
        if len(self.masks) > 1:
            (label, own), shown = next(iter(self.labels.items())), sorted(self.masks.items())
            logger.warning(
                '%s: the masks have different values: %s; all become %s. If that is right, give --label_map "{%s}"; '
                "map a value of another structure to 0",
                name,
                ", ".join(f"{value:g} in {file}" for value, file in shown),
                label,
                ", ".join(f"{value:g}: {own}" for value, _ in shown),
            )

    def _log_once(self, name: str, found: list[float]) -> None:
        """Log the values that ``label_map`` changes, for the first file that has any."""
        names = {0: "background", **{value: label for label, value in self.labels.items()}}
        changed = [v for v in found if self.label_map.get(int(v), v) != v]
        if changed and not self.logged:
            self.logged = True
            merged = ", ".join(f"{v:g} as {names[self.label_map[int(v)]]}" for v in changed)
            logger.info("%s: label_map takes %s; the same holds for all cases", name, merged)


def _on_grid(label: torch.Tensor, image: torch.Tensor, name: str) -> torch.Tensor:
    """Return the label with the axes and the affine of its image."""
    if not (isinstance(label, MetaTensor) and isinstance(image, MetaTensor)):
        if label.shape[1:] != image.shape[1:]:
            raise InputError(
                f"{name}: shape {list(label.shape[1:])}, but its image has {list(image.shape[1:])}; "
                "resample it onto the image"
            )
        return label
    affine, onto = (
        to_ras(volume.meta, source_of(volume, what)) @ affine_of(volume)
        for volume, what in ((label, name), (image, "image"))
    )
    voxels, affine = turn_onto(as_tensor(label)[0].cpu().numpy(), affine, onto)
    difference = grid_difference(voxels.shape, affine, image.shape[1:], onto)
    if difference:
        raise InputError(f"{name}: another grid than its image's: {difference}; resample it onto the image")
    places = ("affine", "original_affine", "spatial_shape", "space")
    place = {key: deepcopy(image.meta[key]) for key in places if key in image.meta}
    turned = torch.as_tensor(np.ascontiguousarray(voxels), device=label.device)[None]
    return MetaTensor(turned, meta={**label.meta, **place})
