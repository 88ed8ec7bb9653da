"""Build the backbone of MA-MTLN: a 3D network of ResNeXt blocks with squeeze and excitation.

Y. Zhang et al., IEEE Transactions on Medical Imaging 40 (2021), doi:10.1109/TMI.2021.3062902.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn

from ...layers import PReLU
from .blocks import HALVED, KEPT, pointwise


class NormalisedConvolution(nn.Module):
    """Convolve without bias, then normalise.

    In inference, the running statistics of a batch normalisation are folded into the weights.

    Args:
        in_channels: int, channels of the input.
        out_channels: int, channels of the output.
        norm: tuple, normalisation, in MONAI's words.
        kernel_size: int, odd, the same along all axes.
        stride: three ints.
        dilation: int.
        groups: int, groups of the convolution.
    """

    __constants__ = ("foldable",)  # TorchScript then does not look for statistics that a group normalisation lacks

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: tuple,
        kernel_size: int = 1,
        stride: tuple[int, int, int] = KEPT,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.norm = get_norm_layer(norm, 3, out_channels)
        self.foldable = isinstance(self.norm, nn.BatchNorm3d)
        self.pointwise = kernel_size == 1 and max(stride) == 1

    def forward(self, x: Tensor) -> Tensor:
        if self.foldable and not self.training and not torch.is_grad_enabled():
            scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
            bias = self.norm.bias - self.norm.running_mean * scale
            return self.convolved(x, self.conv.weight * scale[:, None, None, None, None], bias)
        return self.norm(self.convolved(x, self.conv.weight, None))

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.pointwise:
            return pointwise(x, weight, bias)
        conv = self.conv
        return F.conv3d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class Bottleneck(nn.Module):
    """Apply a ResNeXt block with squeeze and excitation.

    Its steps are a 1x1x1, a grouped 3x3x3 and a 1x1x1 convolution, channel weights, the sum with the input, a PReLU.

    Args:
        in_channels: int, channels of the input.
        planes: int, channels of the grouped convolution; the block returns twice as many.
        stride: three ints, stride of the grouped convolution and of the shortcut.
        dilation: int, dilation of the grouped convolution.
        cardinality: int, groups of the grouped convolution.
        norm: tuple, normalisation, in MONAI's words.
    """

    def __init__(
        self, in_channels: int, planes: int, stride: tuple[int, int, int], dilation: int, cardinality: int, norm: tuple
    ) -> None:
        super().__init__()
        out_channels = 2 * planes
        self.conv1 = NormalisedConvolution(in_channels, planes, norm)
        self.conv2 = NormalisedConvolution(planes, planes, norm, 3, stride, dilation, cardinality)
        self.conv3 = NormalisedConvolution(planes, out_channels, norm)
        self.excite = ChannelSELayer(3, out_channels, r=16, acti_type_1=("leakyrelu", {"negative_slope": 0.01}))
        self.act = PReLU()  # one slope for the three places
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or max(stride) > 1:
            self.shortcut = NormalisedConvolution(in_channels, out_channels, norm, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.excite(self.conv3(self.act(self.conv2(self.act(self.conv1(x))))))
        y += self.shortcut(x)
        return self.act(y)


class Backbone(nn.Module):
    """Compute the features ``F_1`` to ``F_4`` of an image. Args as in :class:`MAMTLN`."""

    def __init__(
        self,
        in_channels: int,
        planes: Sequence[int],
        blocks: Sequence[int],
        cardinality: int,
        norm: tuple,
        pool_stride: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            NormalisedConvolution(in_channels, planes[0], norm, kernel_size=7, stride=HALVED), PReLU()
        )
        self.pool = nn.MaxPool3d(3, tuple(pool_stride), padding=1)
        layers = []
        c = planes[0]
        for p, count, stride, dilation in zip(planes, blocks, (KEPT, HALVED, HALVED, KEPT), (1, 1, 1, 2)):
            layer = []
            for i in range(count):
                layer.append(Bottleneck(c, p, stride if i == 0 else KEPT, dilation, cardinality, norm))
                c = 2 * p
            layers.append(nn.Sequential(*layer))
        self.layers = nn.ModuleList(layers)
        for m in self.modules():
            if isinstance(m, nn.Conv3d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four maps ``(B, 2 * planes[s], x, y, z)``, finest first; the last two have the same size."""
        x = self.pool(self.stem(image))
        features: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features
