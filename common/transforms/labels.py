"""Checks of label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import deepcopy

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..errors import InputError
from ..geometry import grid_difference, to_ras, turn_onto
from ..tensors import affine_of, plain, source_of


class CheckLabeld(MapTransform):
    """Check that a label map lies on its image's grid and holds the expected classes, and round it to integers.

    A label whose axes alone are in another order or direction than its image's is turned to them. The result has the
    affine of the image, so that headers that differ by rounding make no two grids.

    Values within 0.01 of an integer are that integer: masks stored with a scale factor come as 0.99999997. A map of
    background and one other value above 0, such as 0 and 255, is taken as binary where ``num_classes`` is 1.

    Args:
        keys: label maps ``(1, x, y, z)``.
        image_key: the image that they belong to.
        num_classes: foreground classes, labelled 1, 2, ...

    Raises:
        InputError: another grid than the image's, see :func:`common.geometry.grid_difference`, or other values.
    """

    def __init__(
        self, keys: KeysCollection, image_key: str = "image", num_classes: int = 1, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            name = source_of(d[key], key)
            label = _on_grid(d[key], image, name)
            classes = self._classes(plain(label), name)
            d[key] = MetaTensor(classes, meta=label.meta) if isinstance(label, MetaTensor) else classes
        return d

    def _classes(self, label: torch.Tensor, name: str) -> torch.Tensor:
        label = label.to(torch.float32)
        rounded = label.round()
        label = torch.where((label - rounded).abs() <= 0.01, rounded, label)
        present = np.unique(label.cpu().numpy())
        values = [v for v in present if v != 0]
        classes = range(1, self.num_classes + 1)
        if self.num_classes == 1 and len(values) == 1 and values[0] > 0 and len(present) == 2:
            return (label != 0).to(torch.float32)
        if any(v not in classes for v in values):
            shown = ", ".join(f"{v:g}" for v in [0, *values[:6]] if v or 0 in present)
            raise InputError(f"{name}: values {shown}, expected 0 and " + ", ".join(map(str, classes)))
        return label


def _on_grid(label: torch.Tensor, image: torch.Tensor, name: str) -> torch.Tensor:
    """The label with its voxels and its affine as the image has them."""
    if not (isinstance(label, MetaTensor) and isinstance(image, MetaTensor)):
        if label.shape[1:] != image.shape[1:]:
            raise InputError(f"{name}: shape {list(label.shape[1:])}, but its image has {list(image.shape[1:])}")
        return label
    affine, onto = (
        to_ras(volume.meta, source_of(volume, what)) @ affine_of(volume)
        for volume, what in ((label, name), (image, "image"))
    )
    voxels, affine = turn_onto(plain(label)[0].cpu().numpy(), affine, onto)
    difference = grid_difference(voxels.shape, affine, image.shape[1:], onto)
    if difference:
        raise InputError(f"{name}: another grid than its image's: {difference}; resample it onto the image")
    places = ("affine", "original_affine", "spatial_shape", "space")
    place = {key: deepcopy(image.meta[key]) for key in places if key in image.meta}
    turned = torch.as_tensor(np.ascontiguousarray(voxels), device=label.device)[None]
    return MetaTensor(turned, meta={**label.meta, **place})
