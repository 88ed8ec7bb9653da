"""Change the axes of the releases to those of this project."""

from __future__ import annotations

from torch import Tensor


def slices_last(tensor: Tensor) -> Tensor:
    """Move the slice axis of a kernel or a volume from the first to the last place in space."""
    return tensor.movedim(2, -1) if tensor.dim() == 5 else tensor
