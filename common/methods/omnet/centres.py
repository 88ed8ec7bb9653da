"""Where the centres of training patches are drawn."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ...tensors import as_tensor, dilate
from .brain import CORE, TUMOUR


class PatchCentresd(MapTransform):
    """The voxels on which the training patches of OM-Net's three tasks are centred (section III-A).

    Adds an entry of flat indices into the label, int32 on the CPU: "brain", all classes but 0; "tumour", the classes 1,
    2 and 3 and what is near; "core", the classes 1 and 3. Any of them may be empty.

    Args:
        keys: the label ``(1, x, y, z)`` of the classes 0 to 4, on the grid on which patches are cut.
        dilation: voxels around the tumour that count as near, along each axis and diagonally.
        output_key: of the new entry.
    """

    bytes_per_voxel = 4  # int32; the three lists together have no more entries than the brain's box has voxels

    def __init__(self, keys: KeysCollection = "label", dilation: int = 5, output_key: str = "centres") -> None:
        super().__init__(keys)
        self.dilation = dilation
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor | dict[str, Tensor]]:
        d: dict = dict(data)
        label = as_tensor(torch.as_tensor(d[self.first_key(d)]))
        tumour = torch.isin(label, label.new_tensor(TUMOUR))
        masks = {
            "brain": label != 0,
            "tumour": dilate(tumour, self.dilation),
            "core": torch.isin(label, label.new_tensor(CORE)),
        }
        d[self.output_key] = {name: mask.flatten().nonzero()[:, 0].int().cpu() for name, mask in masks.items()}
        return d
