"""Separate the class of a case from its segmentation."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import InputError
from ..tensors import as_tensor, source_of


class SplitClassesd(MapTransform):
    """Remove the class probabilities, the last channels of an output, and put them into the result of the case.

    The entry keeps the segmentation channels. The result gets ``{"class": name, "probabilities": {name: p, ...}}`` in
    plain values. MONAI Label sends the result with the label map.

    Args:
        keys: one output ``(C + classes, x, y, z)`` from :class:`common.inferers.ClassifyingWindowInferer`.
        classes: names in the order of the channels.
        result_key: entry for the result.

    Raises:
        InputError: if no window of the case was computed, so that it has no probabilities.
        ValueError: if there are several keys, fewer channels than classes, or channels that are not probabilities.
    """

    ending = "_class.json"  # CaseEvaluator writes the result to CASE_class.json

    def __init__(
        self,
        keys: KeysCollection,
        classes: Sequence[str],
        result_key: str = "result",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys {self.keys}: expected one key, since a case has one class")
        self.classes = list(classes)
        self.result_key = result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            channels = len(d[key]) - len(self.classes)
            if channels < 0:
                shape, names = list(d[key].shape), ", ".join(self.classes)
                raise ValueError(f"'{key}' of shape {shape}: expected a channel for each of the classes {names}")
            values = as_tensor(d[key])[channels:, 0, 0, 0].tolist()
            if any(map(math.isnan, values)):
                raise InputError(
                    f"{source_of(d[key], key)}: the network saw no part of this scan, so it has no class; check it"
                )
            if min(values) < 0 or abs(sum(values) - 1) > 1e-3:
                shown = ", ".join(f"{p:g}" for p in values)
                raise ValueError(f"'{key}' ends with {shown}, not probabilities; infer with ClassifyingWindowInferer")
            probabilities = dict(zip(self.classes, values))
            likeliest = max(probabilities, key=probabilities.__getitem__)
            d[key] = d[key][:channels]
            result = {"class": likeliest, "probabilities": probabilities}
            d[self.result_key] = {**d.get(self.result_key, {}), **result}
        return d
