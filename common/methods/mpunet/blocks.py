"""Build what MPU-Net and its baseline share: the head of a scale, pooling and initialisation.

Z. Yu, S. Han, Z. Song, arXiv:2307.05799, as in the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """Predict the softmax map of a scale at full size, in float32: 1x1x1 convolution, interpolation, softmax.

    Args:
        channels: int, channels of the features.
        num_classes: int, classes, the background included.
        scale: int, factor of the trilinear interpolation to the size of the image.
    """

    def __init__(self, channels: int, num_classes: int, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, num_classes, kernel_size=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x).float()
        if self.scale != 1:
            logits = F.interpolate(logits, scale_factor=float(self.scale), mode="trilinear", align_corners=False)
        return torch.softmax(logits, 1)


def maximum_of_neighbours(x: Tensor) -> Tensor:
    """Return the maximum over 3x3x3 with stride 1 of a map ``(B, C, x, y, z)``.

    PyTorch's pooling also returns the place of each maximum, in 8 bytes, which only the gradient needs. Without
    gradients, three times the maximum of neighbours along one axis is faster and smaller.
    """
    if torch.is_grad_enabled() or torch.jit.is_tracing():
        return F.max_pool3d(x, kernel_size=3, stride=1, padding=1)
    for axis in range(2, 5):
        size = x.shape[axis]
        before, after = x.narrow(axis, 0, size - 1), x.narrow(axis, 1, size - 1)
        y = x.clone()
        lower, upper = y.narrow(axis, 0, size - 1), y.narrow(axis, 1, size - 1)
        torch.maximum(lower, after, out=lower)
        torch.maximum(upper, before, out=upper)
        x = y
    return x


def initialise(network: nn.Module) -> None:
    """Initialise all convolutions as the released code does: Kaiming normal with a slope of 0.25, biases 0."""
    for m in network.modules():
        if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None:
            nn.init.kaiming_normal_(m.weight, a=0.25)
            nn.init.zeros_(m.bias)
