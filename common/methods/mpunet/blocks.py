"""Build what MPU-Net and its baseline share: 1x1x1 convolution, the head of a scale, pooling and initialisation.

Z. Yu, S. Han, Z. Song, arXiv:2307.05799, as in the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv3d(nn.Conv3d):
    """Convolve 1x1x1 as :class:`torch.nn.Conv3d` does, with the same weights.

    In float32 on one thread of the CPU, PyTorch's convolution of this size copies its input to channels first, and
    needs six times as long as a matrix product. The product reads a map in channels_last_3d, or some of its channels,
    where they lie. In bfloat16 PyTorch's convolution is the faster one. Training and exporters take it too.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output.
        bias: bool, whether the convolution has one.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = True) -> None:
        super().__init__(c_in, c_out, kernel_size=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(B, c_out, x, y, z)`` for a map ``(B, c_in, x, y, z)``."""
        learns = self.training or torch.is_grad_enabled()
        if learns or input.is_cuda or input.dtype != torch.float32 or torch.jit.is_tracing():
            return self._conv_forward(input, self.weight, self.bias)
        voxels = input.movedim(1, 4)
        y = F.linear(voxels.flatten(0, 3), self.weight.flatten(1), self.bias)
        return y.unflatten(0, voxels.shape[:4]).movedim(4, 1)


class Head(nn.Module):
    """Predict the softmax map of a scale at full size, in float32: 1x1x1 convolution, interpolation, softmax.

    Args:
        channels: int, channels of the features.
        num_classes: int, classes, the background included.
        scale: int, factor of the trilinear interpolation to the size of the image.
    """

    def __init__(self, channels: int, num_classes: int, scale: int) -> None:
        super().__init__()
        self.conv = PointwiseConv3d(channels, num_classes)
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
