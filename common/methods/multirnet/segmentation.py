"""Build the segmentation subnet of MultiR-Net: V-Net with reverse attention in its skips and fusion of all scales.

Section 3.1 and 3.2, fig. 2 and 3, eq. 1 to 3 of the paper that ``network`` cites.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from ...layers import PReLU

ENCODER_CONVOLUTIONS = (1, 2, 3, 2)  # V-Net's, per level below the finest
DECODER_CONVOLUTIONS = (1, 1, 2, 2)  # finest level first


class InputTransition(nn.Module):
    """Convolve, add the image with its channels repeated to ``out_channels``, and apply a PReLU.

    If ``in_channels`` does not divide ``out_channels``, a 1x1x1 convolution projects the image. It starts as the mean
    over the channels.

    Args:
        in_channels: int, channels of the image.
        out_channels: int, width of the level.
        kernel_size: int, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv = convolution(in_channels, out_channels, kernel_size=kernel_size, act=False)
        self.act = PReLU(out_channels)
        self.project: nn.Conv3d | None = None
        if out_channels % in_channels != 0:
            self.project = nn.Conv3d(in_channels, out_channels, kernel_size=1, bias=False)
            nn.init.constant_(self.project.weight, 1 / in_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.project is not None:
            return self.act(self.conv(x) + self.project(x))
        # the sum repeats the image by broadcasting: no tensor of out_channels for it
        groups = self.conv(x).unflatten(1, [-1, self.in_channels])
        return self.act((groups + x.unsqueeze(1)).flatten(1, 2))


class ResidualStage(nn.Module):
    """Apply convolutions of one width and add the input; the last PReLU follows the sum.

    Args:
        channels: int, width.
        convolutions: int, number of convolutions.
        kernel_size: int, odd.
    """

    def __init__(self, channels: int, convolutions: int, kernel_size: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(convolution(channels, channels, kernel_size=kernel_size) for _ in range(convolutions))
        )
        self.act = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convs(x).add_(x))  # in place: a PReLU keeps its input for the gradient, not its output


def reverse_attention(features: Tensor, up: Tensor) -> Tensor:
    """Keep the features where the level below has found nothing yet (``R``, eq. 2, 3).

    Args:
        features: ``F_i`` ``(B, C, x, y, z)``.
        up: up-sampled features of the level below, of the same shape.
    """
    return features * torch.neg(up).sigmoid_()  # 1 - sigmoid(up), without its cancellation


class UpTransition(nn.Module):
    """Double the size, concatenate with the skip under reverse attention, and convolve.

    Args:
        in_channels: int, channels from the level below.
        skip_channels: int, channels of the skip; the output has twice as many.
        convolutions: int, number of convolutions of the residual stage.
        kernel_size: int, odd, of the residual stage.
        reverse_attention: str, as in :class:`.network.MultiRNet`.
    """

    __constants__ = ("erases",)  # TorchScript leaves out the attention that is off

    def __init__(
        self, in_channels: int, skip_channels: int, convolutions: int, kernel_size: int, reverse_attention: str
    ) -> None:
        super().__init__()
        self.erases = reverse_attention != "off"
        self.up = _double(in_channels, skip_channels, norm="batch")
        self.act = PReLU(skip_channels)
        self.own_up = _double(in_channels, skip_channels, norm=None) if reverse_attention == "own" else None
        self.stage = ResidualStage(2 * skip_channels, convolutions, kernel_size)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.stage(self.merge(x, skip))

    def merge(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the features from below at twice their size, then the skip, ``(B, 2 * skip_channels, x, y, z)``."""
        up = self.up(x)
        if self.erases:
            skip = reverse_attention(skip, up if self.own_up is None else self.own_up(x))
        return torch.cat([self.act(up), skip], 1)


class UpSampling(nn.Module):
    """Up-sample maps by a trainable transposed convolution, initially trilinear (``UP``, eq. 1).

    All maps share its kernel, as positions do.

    Args:
        factor: int, even; ``(B, K, x, y, z)`` becomes ``(B, K, factor * x, factor * y, factor * z)``.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        tent = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()
        self.weight = nn.Parameter(tent[:, None, None] * tent[:, None] * tent)

    def forward(self, x: Tensor) -> Tensor:
        # Map and kernel get their only channel here, and with it contiguous strides. With those of channels_last_3d
        # PyTorch's transposed convolution takes a path on the CPU that is 1000 times slower at factor 16.
        padded = F.pad(x.flatten(0, 1), [1, 1, 1, 1, 1, 1], mode="replicate").unsqueeze(1)
        padding = self.factor + self.factor // 2
        maps = F.conv_transpose3d(padded, self.weight[None, None], stride=self.factor, padding=padding)
        return maps.squeeze(1).unflatten(0, [-1, x.shape[1]])


class SegmentationSubnet(nn.Module):
    """Segment by V-Net with reverse attention in its skips and multi-scale fusion (fig. 2).

    Grad-CAM is computed on the output of ``decoder[-1]``. Args as in :class:`.network.MultiRNet`.
    """

    __constants__ = ("mean_sigmoid",)  # TorchScript leaves out the other fusion

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        kernel_size: int,
        reverse_attention: str,
        fusion: str,
    ) -> None:
        super().__init__()
        self.mean_sigmoid = fusion == "mean_sigmoid"
        self.encoder = nn.ModuleList([InputTransition(in_channels, channels[0], kernel_size)])
        decoder: list[nn.Module] = []
        heads: list[nn.Module] = [nn.Conv3d(2 * channels[0], out_channels, kernel_size=1)]
        for level, (c, c_below) in enumerate(pairwise(channels)):
            down = convolution(c, c_below, kernel_size=2, strides=2, padding=0)
            self.encoder.append(nn.Sequential(down, ResidualStage(c_below, ENCODER_CONVOLUTIONS[level], kernel_size)))
            last = level == len(channels) - 2
            below = c_below if last else 2 * c_below
            decoder.append(UpTransition(below, c, DECODER_CONVOLUTIONS[level], kernel_size, reverse_attention))
            heads.append(nn.Sequential(nn.Conv3d(below, out_channels, kernel_size=1), UpSampling(2 ** (level + 1))))
        self.decoder = nn.ModuleList(reversed(decoder))
        self.bottom_head = heads.pop()
        self.heads = nn.ModuleList(reversed(heads))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(B, out_channels, x, y, z)`` in float32, and features ``(B, 2 * channels[0], x, y, z)``."""
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        maps = [self.bottom_head(x)]
        for block, head in zip(self.decoder, self.heads):
            x = block(x, skips.pop())
            maps.append(head(x))
        scales = torch.stack(maps).float()
        if self.mean_sigmoid:
            # the logit of the mean, from log(sigmoid(-z)) = -softplus(z), without rounding to 0 or 1 in between
            return torch.logsumexp(-F.softplus(-scales), 0) - torch.logsumexp(-F.softplus(scales), 0), x
        return scales.sum(0), x


def convolution(
    c_in: int, c_out: int, *, kernel_size: int, strides: int = 1, padding: int | None = None, act: bool = True
) -> Convolution:
    """Build a convolution without bias, with batch normalisation and, unless ``act`` is False, a PReLU."""
    block = Convolution(
        3,
        c_in,
        c_out,
        kernel_size=kernel_size,
        strides=strides,
        padding=padding,
        bias=False,
        norm="batch",
        act=None,
        adn_ordering="NA",
    )
    if act:
        block.adn.add_module("A", PReLU(c_out))
    return block


def _double(c_in: int, c_out: int, norm: str | None) -> Convolution:
    """Build a transposed convolution 2x2x2 of stride 2, without activation."""
    return Convolution(
        3,
        c_in,
        c_out,
        kernel_size=2,
        strides=2,
        padding=0,
        output_padding=0,
        is_transposed=True,
        norm=norm,
        act=None,
        adn_ordering="N",
    )
