"""Crop to the slices around the organ (section 4.1, as in the released code)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.transforms import Crop, MapTransform
from torch import Tensor

from ...errors import InputError
from ...tensors import as_tensor, source_of


class CropSlabd(MapTransform):
    """Crop to the slices from the first to the last with foreground, and a margin on either side.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        label_key: key of the label map ``(1, x, y, z)``; values above 0 are foreground.
        margin: number of slices to keep on either side, up to the border of the volume.

    Raises:
        InputError: the label has no foreground.
    """

    def __init__(
        self, keys: KeysCollection, label_key: str = "label", margin: int = 20, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.margin = margin
        self.crop = Crop()

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the largest shape of the box, that of the scan, see :mod:`common.transforms`."""
        return shape, spacing

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        label = d[self.label_key]
        found = (as_tensor(label) > 0).any(dim=0).any(dim=0).any(dim=0).nonzero()
        if len(found) == 0:
            raise InputError(
                f"{source_of(label, self.label_key)}: found no foreground on the network's grid; training needs "
                "foreground, so remove the case from the data list"
            )
        kept = slice(max(int(found[0]) - self.margin, 0), int(found[-1]) + 1 + self.margin)
        for key in self.key_iterator(d):
            d[key] = self.crop(d[key], (slice(None), slice(None), slice(kept.start, min(kept.stop, d[key].shape[3]))))
        return d
