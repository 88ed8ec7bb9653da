"""Compare the maps of a network with the masks of a label map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def binary_cross_entropy(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of probabilities and masks of 0 and 1, of the same shape.

    A probability below 1e-7 counts as 1e-7. PyTorch refuses its own function inside autocast.
    """
    given_to_truth = (1 - masks) + (2 * masks - 1) * probabilities  # exact, and faster than torch.where
    return -F.threshold(given_to_truth, 1e-7, 1e-7).log().mean()


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
