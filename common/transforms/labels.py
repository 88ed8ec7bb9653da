"""Checks of label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..errors import InputError
from ..tensors import source_of


class CheckLabeld(MapTransform):
    """Check that a label map lies on its image's grid and holds the expected classes, and round it to integers.

    Values within 0.01 of an integer are that integer: masks stored with a scale factor come as 0.99999997. A map of
    background and one other value, such as 0 and 255, is taken as binary where ``num_classes`` is 1.

    Args:
        keys: label maps ``(1, x, y, z)``.
        image_key: the image that they belong to.
        num_classes: foreground classes, labelled 1, 2, ...

    Raises:
        InputError: another shape or affine than the image's, or other values.
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
            label = d[key]
            name = source_of(label, key)
            if label.shape[1:] != image.shape[1:]:
                raise InputError(f"{name}: shape {list(label.shape[1:])}, but its image has {list(image.shape[1:])}")
            if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
                shift = float((label.affine - image.affine).abs().max())
                if shift > 0.1:
                    raise InputError(
                        f"{name}: its affine differs from its image's by up to {shift:.3g}; resample it onto the image"
                    )
            rounded = label.round()
            values = [v for v in np.unique(label.cpu().numpy()) if v]
            if self.num_classes == 1 and len(values) == 1:
                rounded = label != 0
            elif float((label - rounded).abs().max()) > 0.01 or any(not 0 < v < self.num_classes + 0.5 for v in values):
                shown = ", ".join(f"{v:g}" for v in values[:6])
                raise InputError(
                    f"{name}: values 0, {shown}, expected 0 and " + ", ".join(map(str, range(1, self.num_classes + 1)))
                )
            d[key] = rounded.to(torch.float32)
        return d
