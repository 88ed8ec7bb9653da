"""Turn a label map into the masks that a network's maps are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError


def label_masks(label: Tensor, maps: Tensor) -> Tensor:
    """Return the mask of each label, 0 or 1, in the shape and type of the network's maps.

    Args:
        label: ``(B, 1, ...)``, 0 for the background and 1 to K for the labels.
        maps: ``(B, K, ...)``, logits or probabilities.

    Raises:
        InputError: the shapes differ from these, or a label has no map.
    """
    if label.shape != (len(maps), 1, *maps.shape[2:]):
        raise InputError(
            f"maps of shape {list(maps.shape)} with a label of shape {list(label.shape)}: expected (B, labels, ...) "
            "and (B, 1, ...)"
        )
    values = torch.arange(1, maps.shape[1] + 1, device=label.device)
    masks = label == values.view(-1, *[1] * (label.dim() - 2))
    unknown = label[(label != 0) & ~masks.any(1, keepdim=True)]
    if len(unknown):
        raise InputError(
            f"the label map has the value {unknown[0].item():g}, but the network has maps of the values 1 to "
            f"{maps.shape[1]}; give network_def as many out_channels as there are labels"
        )
    return masks.to(maps.dtype)
