"""Keep separate running statistics of batch normalisation for the first pass and the later ones; not in the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PassNorm(nn.BatchNorm3d):
    """Normalise with the running statistics of the first pass or with those of the later passes.

    The first pass sees the image alone, later passes see it with a map added. Weights and biases are the same in all
    passes. The buffers ``running_mean`` and ``running_var`` have the shape ``(2, channels)``: the first pass, then the
    later ones. The attribute ``later`` chooses; the network sets it before each pass.

    Args:
        channels: int, channels of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.running_mean = torch.zeros(2, channels)
        self.running_var = torch.ones(2, channels)
        self.later = False

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None  # optional ones in the base class
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        number = int(self.later)
        mean, var = self.running_mean[number], self.running_var[number]  # views, which the training updates in place
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, 0.1, self.eps)


def separate_statistics(network: nn.Module) -> None:
    """Replace every batch normalisation of a network by a :class:`PassNorm`."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm3d):
                setattr(module, name, PassNorm(child.num_features))
