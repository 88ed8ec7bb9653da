"""Read the tensor of a volume, and dilate masks, for transforms, data sets and inferers."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import Tensor


def as_tensor(tensor: Tensor) -> Tensor:
    """Return the plain tensor of the same memory; operations on a ``MetaTensor`` copy its metadata each time."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def affine_of(tensor: MetaTensor) -> np.ndarray:
    """Return the 4x4 affine as float64, in the space that the metadata names."""
    return tensor.affine.cpu().numpy().astype(np.float64)


def source_of(tensor: Tensor, key: object) -> str:
    """Return the file that a volume was read from, or its key if there is none, for messages."""
    return str(tensor.meta.get("filename_or_obj", key)) if isinstance(tensor, MetaTensor) else str(key)


def dilate(mask: Tensor, margin: int) -> Tensor:
    """Return masks ``(B, x, y, z)`` grown by ``margin`` voxels along the axes and the diagonals."""
    grown = mask.float()
    for axis in range(3):
        reach = [margin if i == axis else 0 for i in range(3)]
        grown = F.max_pool3d(grown, [2 * r + 1 for r in reach], stride=1, padding=reach)
    return grown > 0
