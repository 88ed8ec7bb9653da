"""Turn the classes of a network into the values of its labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..labels import check_labels
from ..tensors import as_tensor


class LabelValuesd(MapTransform):
    """Replace each class of a label map by the value of its label; the background stays 0.

    Args:
        keys: label maps ``(1, x, y, z)`` of integers. Class N is the Nth label.
        labels: names to values.
        count: number of labels that the method segments; None for any number.

    Raises:
        InputError: if the labels are not valid or another number.
        ValueError: if a class has no label, since the labels describe another network.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Mapping[str, int],
        count: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.values = [0, *check_labels(labels, count).values()]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            label = d[key]
            if int(as_tensor(label).max()) >= len(self.values):
                raise ValueError(
                    f"'{key}': class {int(as_tensor(label).max())}, but there are {len(self.values) - 1} labels"
                )
            if self.values != list(range(len(self.values))):
                result = label.clone()
                as_tensor(result).copy_(as_tensor(label).new_tensor(self.values)[as_tensor(label).long()])
                d[key] = result
        return d
