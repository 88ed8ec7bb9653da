"""Convolve in three dimensions, on the CPU always by the fast kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Three = tuple[int, int, int]

HAS_FAST_KERNEL = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


class Conv3d(nn.Conv3d):
    """Convolve as :class:`torch.nn.Conv3d` does, with the same weights.

    In float32 on the CPU, PyTorch takes a slow kernel for one image of few voxels, and on one thread for kernels of
    1x1x1. This kernel needs up to ten times as long. It also returns the channels first in memory, so that the next
    layers copy their maps. Here oneDNN computes every convolution. The results differ by rounding.

    Args:
        in_channels: int, channels of the input.
        out_channels: int, channels of the output.
        kernel_size: int or three ints, odd; the output has the size of the input.
        bias: bool, whether the convolution has one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | Three = 3, bias: bool = True) -> None:
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        x, y, z = (k // 2 for k in kernel)
        super().__init__(in_channels, out_channels, kernel, padding=(x, y, z), bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(B, c_out, x, y, z)`` for a map ``(B, c_in, x, y, z)``; under autocast, in its type."""
        if torch.jit.is_scripting():
            return F.conv3d(input, self.weight, self.bias, self.stride, self.padding)
        return conv3d(input, self.weight, self.bias)


@torch.jit.ignore
def conv3d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve a map ``(B, c_in, x, y, z)`` with weights ``(c_out, c_in, *kernel)``; the size stays."""
    x_pad, y_pad, z_pad = (k // 2 for k in weight.shape[2:])
    padding = [x_pad, y_pad, z_pad]
    special = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    if special or not HAS_FAST_KERNEL or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32:
        return F.conv3d(x, weight, bias, padding=padding)
    return torch.mkldnn_convolution(x, weight, bias, padding, [1, 1, 1], [1, 1, 1], 1)
