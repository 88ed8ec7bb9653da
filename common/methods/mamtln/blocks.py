"""Build the layers that the parts of MA-MTLN share: convolutions, and the fusion of maps of several sizes.

Y. Zhang et al., IEEE Transactions on Medical Imaging 40 (2021), doi:10.1109/TMI.2021.3062902.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import PReLU

KEPT, HALVED = (1, 1, 1), (2, 2, 1)  # strides


class PointwiseConvolution(nn.Conv3d):
    """Convolve 1x1x1 with stride 1, see :func:`pointwise`."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve a map ``(B, c_in, x, y, z)`` with weights ``(c_out, c_in, 1, 1, 1)``.

    It is a matrix product if the channels lie last in memory: PyTorch's convolution on the CPU copies such a map.
    """
    if x.is_cuda or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return F.conv3d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


def convolution(
    c_in: int, c_out: int, kernel_size: int, norm_groups: int, bias: bool = True, stride: tuple[int, int, int] = KEPT
) -> nn.Sequential:
    """Build a convolution, group normalisation and PReLU.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output.
        kernel_size: int, odd, the same along all axes.
        norm_groups: int, groups of the normalisation.
        bias: bool, whether the convolution has one.
        stride: three ints.
    """
    conv: nn.Module
    if kernel_size == 1 and max(stride) == 1:
        conv = PointwiseConvolution(c_in, c_out, bias)
    else:
        conv = nn.Conv3d(c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=bias)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.GroupNorm(norm_groups, c_out), act=PReLU()))


def downsampling(width: int, kernel_size: int, norm_groups: int) -> nn.Sequential:
    """Build a :func:`convolution` that halves x and y; its normalisation has half the groups."""
    return convolution(width, width, kernel_size, norm_groups // 2, bias=False, stride=HALVED)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Interpolate a map (trilinear) to the spatial size of another map; one of that size is returned as it is."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


class Merge(nn.Module):
    """Convolve (1x1x1) the concatenation of maps, resized to the last of them; then normalisation and PReLU.

    The concatenation is not formed. Each map meets its share of the weights at its own size; the results are resized
    to the last map and added.

    Args:
        in_channels: int, channels of all maps together.
        width: int, channels of the result.
        norm_groups: int, groups of the normalisation.
    """

    def __init__(self, in_channels: int, width: int, norm_groups: int) -> None:
        super().__init__()
        self.conv = PointwiseConvolution(in_channels, width)
        self.norm = nn.GroupNorm(norm_groups, width)
        self.act = PReLU()

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return ``(B, width, x, y, z)``, of the size of the last map; the maps are in the order of concatenation."""
        shares = self.conv.weight.split([m.shape[1] for m in maps], 1)
        y = pointwise(maps[-1], shares[-1], self.conv.bias)
        for i in range(len(maps) - 1):
            y += resize(pointwise(maps[i], shares[i]), y)
        return self.act(self.norm(y))


class Fusion(nn.Module):
    """Fuse maps of several sizes by :class:`Merge` and two 3x3x3 convolutions. Args as in :class:`Merge`."""

    def __init__(self, in_channels: int, width: int, norm_groups: int) -> None:
        super().__init__()
        self.merge = Merge(in_channels, width, norm_groups)
        self.refine = nn.Sequential(*(convolution(width, width, 3, norm_groups) for _ in range(2)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.refine(self.merge(maps))
