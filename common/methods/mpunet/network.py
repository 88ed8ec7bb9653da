"""Define MPU-Net, a multi-scale U-Net with position attention for organs and tumours in CT.

Z. Yu, S. Han, Z. Song, "3D Medical Image Segmentation based on multi-scale MPU-Net", arXiv:2307.05799 (2023).

A residual encoder shrinks the image to an eighth, where every position attends to all others. The decoder has attention
gates. The mean of the softmax maps of four scales is the segmentation. Equation numbers are those of the paper.
Figure by figure, and every deviation with its reason: ``docs/explanation/mpunet.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...layers import PReLU, TwoForms
from ...layers.checks import check_channels, check_option, check_sizes
from ...layers.strips import cut, joined, strips_of, trimmed, widened
from .attention import AttentionGate, PositionAttention
from .blocks import Head, PointwiseConv3d, initialise, maximum_of_neighbours


class ResidualStage(nn.Module):
    """Apply two 3x3x3 convolutions with PReLU, add the input, and drop single elements in training.

    An input of one channel is added to every channel, and one of ``c_out`` channels channel by channel. An input of
    another number of channels is projected by a 1x1x1 convolution, which starts as the mean over the channels.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output.
        dropout: float, probability to drop an element in training.
    """

    def __init__(self, c_in: int, c_out: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(c_in, c_out), *_convolution(c_out, c_out))
        self.project: nn.Module = nn.Identity() if c_in in (1, c_out) else PointwiseConv3d(c_in, c_out, bias=False)
        self.dropout = nn.Dropout(dropout, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += self.project(x)
        return self.dropout(y)


class Down(nn.Module):
    """Pass to the next level: maximum over 3x3x3 with stride 1, convolution, batch normalisation, ELU.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output.
        halve: bool, True convolves 2x2x2 with stride 2, False 3x3x3 with stride 1.
        alpha: float, alpha of the ELU.
        bn_momentum: float, momentum of the batch normalisation.
    """

    def __init__(self, c_in: int, c_out: int, halve: bool, alpha: float, bn_momentum: float) -> None:
        super().__init__()
        kernel, stride, padding = (2, 2, 0) if halve else (3, 1, 1)
        self.body = nn.Sequential(
            nn.Conv3d(c_in, c_out, kernel, stride, padding),
            nn.BatchNorm3d(c_out, momentum=bn_momentum),
            nn.ELU(float(alpha), inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(maximum_of_neighbours(x))


class TwoBranches(nn.Module):
    """Refine by the multi-scale block (eq. 14 to 17): two 3x3x3 beside two 5x5x5 convolutions, fused by 1x1x1.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output, even; each branch has half of them.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.branches = nn.ModuleList(
            nn.Sequential(*_convolution(c_in, half, kernel), *_convolution(half, half, kernel)) for kernel in (3, 5)
        )
        self.fusion = PointwiseConv3d(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(torch.cat([branch(x) for branch in self.branches], 1))


class DecoderStage(nn.Module):
    """Join the features from below with the skip, refine them, add the features from below again, and gate the sum.

    Args:
        below: int, channels from below, which a transposed convolution doubles in size; None if they have the size and
            the width of this stage already. They are then added, but not joined with the skip.
        skip: int, channels of the skip.
        channels: int, width of the stage.
        two_branches: bool, refine by :class:`TwoBranches` in place of three 3x3x3 convolutions with PReLU.
        gate: bool, apply the attention gate.
        dropout: float, probability to drop an element of the result in training.
        bn_momentum: float, momentum of the batch normalisation in the gate.
    """

    __constants__: Sequence[str] = ("channels", "gated", "joins")  # TorchScript leaves out the other branch

    def __init__(
        self,
        below: int | None,
        skip: int,
        channels: int,
        *,
        two_branches: bool,
        gate: bool,
        dropout: float,
        bn_momentum: float,
    ) -> None:
        super().__init__()
        self.joins, self.gated, self.channels = below is not None, gate, channels
        self.up: nn.Module = nn.Identity()
        if below is not None:
            self.up = nn.Sequential(nn.ConvTranspose3d(below, channels, kernel_size=2, stride=2), PReLU(channels))
        widths = [skip if below is None else channels + skip, *3 * [channels]]
        layers = [layer for c_in, c in pairwise(widths) for layer in _convolution(c_in, c)]
        self.refine = TwoBranches(widths[0], channels) if two_branches else nn.Sequential(*layers)
        self.gate = AttentionGate(channels, bn_momentum) if gate else nn.Identity()
        self.dropout = nn.Dropout(dropout, inplace=True)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        if self.joins:
            skip = torch.cat([self.up(below), skip], 1)
            signal = skip[:, : self.channels]  # a view, so that there is one copy of it while the convolutions run
        else:
            signal = below
        y = self.refine(skip)
        y += signal
        if self.gated:
            y = self.gate(y, signal)
        return self.dropout(y)


class MPUNet(TwoForms):
    """Segment organs by MPU-Net (fig. 1); the defaults are the published network, of 21,507,255 used parameters.

    Args:
        in_channels: int, channels of the image, which is added to the first level: one channel to all of its features;
            several by a learned 1x1x1 projection, unless they are as many as the features.
        out_channels: int, classes, the background included.
        channels: five ints, width of the stages of the encoder, finest first, the last a multiple of 8; the bottom has
            twice the last.
        dropout: float, probability to drop an element in training, in all stages but those of full size.
        attention: str, position attention in ``"linear"`` memory, ``"explicit"`` with the matrix of all pairs, or
            ``"off"``. The first two are the same function of the same weights.
        gates: bool, attention gates in the decoder.
        fusion: str, ``"mean"`` of the softmax maps of four scales, or the map of the ``"finest"`` scale alone.
        block: str, ``"residual"`` for the released stages of the decoder, ``"two_branch"`` for eq. 14 to 17.
        elu_alpha: float, alpha of the ELUs, or ``"channels"`` for the released value, their number of channels. The
            latter serves to compare weights, not to train: float32 then differs from float64 by 0.085.
        bn_momentum: float, weight of the new batch in the running statistics of batch normalisation.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.

    Raises:
        ValueError: an option outside the values above.
    """

    # Inference computes the level of full size in strips of so many voxels along x. Around a strip the convolutions of
    # the decoder reach 3 voxels (two of 5x5x5: 4, and half the resolution needs an even number), the encoder's 2 more.
    strip, decoder_reach, encoder_reach = 32, 4, 2

    encoder_modules = ("encoder", "down")
    __constants__: Sequence[str] = ("decoder_reach", "dense", "encoder_reach", "fused", "strip")

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        dropout: float = 0.2,
        attention: str = "linear",
        gates: bool = True,
        fusion: str = "mean",
        block: str = "residual",
        elu_alpha: float | str = 1.0,
        bn_momentum: float = 0.1,
        dense: bool = False,
    ) -> None:
        super().__init__(dense)
        check_option("attention", attention, ("linear", "explicit", "off"))
        check_option("fusion", fusion, ("mean", "finest"))
        check_option("block", block, ("residual", "two_branch"))
        if isinstance(elu_alpha, str):
            check_option("elu_alpha", elu_alpha, ("channels",))
        if len(channels) != 5 or channels[-1] % 8 != 0:
            raise ValueError(f"channels={channels!r}: expected five widths, the last a multiple of 8")
        if in_channels < 1:
            raise ValueError(f"in_channels={in_channels}: expected at least 1")
        self.in_channels = in_channels
        self.divisors = [8, 8, 8]
        self.fused = fusion == "mean"

        c0, c1, c2, c3, c4 = channels
        self.encoder = nn.ModuleList(
            ResidualStage(c_in, c, dropout if level > 0 else 0.0)
            for level, (c_in, c) in enumerate(zip((in_channels, *channels[1:]), channels))
        )
        self.down = nn.ModuleList(
            Down(c, c_out, level < 3, c_out if isinstance(elu_alpha, str) else elu_alpha, bn_momentum)
            for level, (c, c_out) in enumerate(pairwise((*channels, 2 * c4)))
        )
        self.bottom = nn.Sequential(
            *_normalised(2 * c4, c4, bn_momentum),
            nn.Identity() if attention == "off" else PositionAttention(c4, attention == "linear"),
            *_normalised(c4, c4, bn_momentum),
        )

        def stage(below: int | None, skip: int, c: int, dropout: float) -> DecoderStage:
            two_branches = block == "two_branch"
            return DecoderStage(
                below, skip, c, two_branches=two_branches, gate=gates, dropout=dropout, bn_momentum=bn_momentum
            )

        self.decoder = nn.ModuleList(
            stage(below, skip, c, dropout) for below, skip, c in ((None, c3, c4), (c4, c2, c3), (c3, c1, c2))
        )
        scales = ((c4, 8), (c3, 4), (c2, 2)) if self.fused else ()
        self.coarse_heads = nn.ModuleList(Head(c, out_channels, scale) for c, scale in scales)
        self.finest = stage(c2, c0, c1, 0.0)
        self.head = Head(c1, out_channels, 1)
        initialise(self)
        if isinstance(projection := self.encoder[0].project, nn.Conv3d):
            nn.init.constant_(projection.weight, 1 / in_channels)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Predict class probabilities; they sum to 1 at every voxel.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of 8.

        Returns:
            Maps ``(B, out_channels, x, y, z)`` in float32. For training: ``seg``, the mean of the softmax maps of four
            scales (eq. 18), and ``aux_8``, ``aux_4``, ``aux_2``, the maps of an eighth, a quarter and half the
            resolution; ``seg`` alone with ``fusion="finest"``. For inference: the tensor of ``seg``.

        Raises:
            ValueError: another number of channels, or a spatial size that does not divide.
        """
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisors)
        strips = strips_of(image.shape[2], self.strip, self.training)

        finest_skips, x = self.encode_finest(image, strips)
        skips: list[Tensor] = []
        for level, (stage, down) in enumerate(zip(self.encoder, self.down)):
            if level > 0:
                x = stage(x)
                skips.append(x)
                x = down(x)
        skips.pop()  # the decoder starts at the level above
        x = self.bottom(x)

        maps: list[Tensor] = []
        if self.fused:
            for stage, head in zip(self.decoder, self.coarse_heads):
                x = stage(x, skips.pop())
                maps.append(head(x))
        else:
            for stage in self.decoder:
                x = stage(x, skips.pop())
        seg = self.decode_finest(x, finest_skips, strips)

        if self.fused:
            seg = seg + maps[0]  # not in place: the softmax keeps its result for the gradient
            seg += maps[1]
            seg += maps[2]
            seg /= 4  # eq. 18
        if self.dense:
            return seg
        if self.fused:
            return {"seg": seg, "aux_8": maps[0], "aux_4": maps[1], "aux_2": maps[2]}
        return {"seg": seg}

    def encode_finest(self, image: Tensor, strips: list[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        """Encode the level of full size; returns the skip of each strip and the features of half the size."""
        size = image.shape[2]
        skips: list[Tensor] = []
        halves: list[Tensor] = []
        for strip in strips:
            near = widened(strip, self.decoder_reach, size)
            far = widened(near, self.encoder_reach, size)
            skip = trimmed(self.encoder[0](cut(image, far)), near, far)
            halves.append(trimmed(self.down[0](skip), strip, near, 2))
            skips.append(skip)
        return skips, joined(halves)

    def decode_finest(self, x: Tensor, skips: list[Tensor], strips: list[tuple[int, int]]) -> Tensor:
        """Decode the level of full size from the features of half the size; returns its softmax map."""
        maps: list[Tensor] = []
        for strip in strips:
            near = widened(strip, self.decoder_reach, 2 * x.shape[2])
            y = self.finest(cut(x, near, 2), skips.pop(0))
            maps.append(self.head(trimmed(y, strip, near)))
        return joined(maps)


def _convolution(c_in: int, c_out: int, kernel: int = 3) -> tuple[nn.Conv3d, PReLU]:
    return nn.Conv3d(c_in, c_out, kernel, padding=kernel // 2), PReLU(c_out)


def _normalised(c_in: int, c_out: int, bn_momentum: float) -> tuple[nn.Conv3d, nn.BatchNorm3d, PReLU]:
    return nn.Conv3d(c_in, c_out, 3, padding=1), nn.BatchNorm3d(c_out, momentum=bn_momentum), PReLU()
