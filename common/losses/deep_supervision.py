"""The loss of a network that is also supervised at its coarser maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class DeepSupervisionLoss(nn.Module):
    """``loss(seg) + w * sum of loss(aux)`` over the outputs ``aux_...``, whose weight fades with the epochs.

    ``w = weight * decay ** ((epoch - 1) // every)``. The defaults are those of MPU-Net's released code: 0.4 in the
    epochs 1 to 30, 0.32 in 31 to 60. Without an ``aux_...`` output it is the loss of ``seg``.

    Args:
        loss: of a map and a label ``(B, 1, x, y, z)``, to a scalar.
        weight: of each auxiliary map in the first epochs.
        decay: factor on that weight.
        every: epochs from one such factor to the next.
    """

    def __init__(
        self, loss: Callable[[Tensor, Tensor], Tensor], weight: float = 0.4, decay: float = 0.8, every: int = 30
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.decay = decay
        self.every = every
        self.aux_weight = weight

    def set_epoch(self, epoch: int) -> None:
        """The epoch of the next calls, from 1, which is also that of a new object."""
        self.aux_weight = self.weight * self.decay ** ((epoch - 1) // self.every)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """A scalar in float32, of the maps ``seg`` and ``aux_...`` and of the label ``seg``."""
        total, label = self.loss(outputs["seg"].float(), targets["seg"]), targets["seg"]
        aux = [self.loss(output.float(), label) for name, output in outputs.items() if name.startswith("aux_")]
        return total + self.aux_weight * torch.stack(aux).sum() if aux else total
