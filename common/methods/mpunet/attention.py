"""Build the attention of MPU-Net: between positions at the bottom, and in the gates of the decoder.

Equation numbers are those of Z. Yu, S. Han, Z. Song, arXiv:2307.05799.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import PointwiseConv3d


class PositionAttention(nn.Module):
    """Give every position the mean of all values, weighted by similarity (eq. 6, 8, 9).

    The linear form calls PyTorch's fused attention on groups of values as wide as the keys. Only then do the kernels of
    the CPU avoid the matrix of all pairs. All groups share queries and keys, so the result is the same.

    Args:
        channels: int, width, a multiple of 8.
        linear: bool, True needs memory linear in the number of positions; False forms the matrix of all pairs.
    """

    def __init__(self, channels: int, linear: bool = True) -> None:
        super().__init__()
        self.linear = linear
        self.widths = [channels // 8, channels // 8, channels]
        self.projection = nn.Conv3d(channels, sum(self.widths), kernel_size=1)  # queries, keys, values
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features ``(B, C, x, y, z)`` plus ``gamma`` times their attention."""
        # positions (B, n, C) with their channels side by side; of features in channels_last_3d no copy is made
        tokens = x.flatten(2).transpose(1, 2)
        projected = F.linear(tokens, self.projection.weight.flatten(1), self.projection.bias)  # needs less than Conv3d
        q, k, v = projected.split(self.widths, 2)
        if self.linear:
            groups: list[Tensor] = []
            # one after the other: as heads of one call they would repeat the gradients of queries and keys
            for features, values in zip(tokens.split(q.shape[2], 2), v.split(q.shape[2], 2)):
                attended = F.scaled_dot_product_attention(q[:, None], k[:, None], values[:, None], scale=1.0)
                groups.append(torch.addcmul(features, attended[:, 0], self.gamma))
            y = torch.cat(groups, 2)
        else:
            y = torch.addcmul(tokens, torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=2), v), self.gamma)
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class AttentionGate(nn.Module):
    """Scale the features of each voxel by a coefficient made of them and of a signal of the same size (eq. 10 to 12).

    Args:
        channels: int, channels of the features and of the signal.
        bn_momentum: float, momentum of the batch normalisation.
    """

    def __init__(self, channels: int, bn_momentum: float) -> None:
        super().__init__()

        def normalised(convolution: nn.Conv3d) -> nn.Sequential:
            return nn.Sequential(convolution, nn.BatchNorm3d(convolution.out_channels, momentum=bn_momentum))

        half = channels // 2
        self.features, self.signal = (normalised(PointwiseConv3d(channels, half)) for _ in range(2))
        self.psi = normalised(nn.Conv3d(half, 1, kernel_size=1))  # as a matrix product its rounding would differ

    def coefficient(self, x: Tensor, g: Tensor) -> Tensor:
        """Return ``alpha`` ``(B, 1, x, y, z)``, between 0 and 1, for features ``x`` and signal ``g``."""
        hidden = self.features(x)
        hidden += self.signal(g)
        return torch.sigmoid(self.psi(torch.relu_(hidden)))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return x * self.coefficient(x, g)
