"""MPU-Net: multi-scale U-Net with position attention for organs and tumours in CT.

Z. Yu, S. Han, Z. Song, "3D Medical Image Segmentation based on multi-scale MPU-Net", arXiv:2307.05799. Equation
numbers below are those of the paper. The authors published their code (github.com/Stefan-Yu404/MP-UNet); "released"
below means a fact taken from it. Only its graph has the parameters of the paper's table 6.

Deviations and decisions, with the evidence:

* 21,507,255 parameters, where table 6 has 22,557,009: the released network registers 1,049,754 (an up-sampling of 512
  to 256 channels, a decoder block and a head of 2) that its forward never uses. They are not built. By its size, the
  paper's checkpoint has their weights, but no state of the optimiser for them.
* A stage of the decoder is three 3x3x3 convolutions, as released; the count leaves no other. The two branches of eq.
  14 to 17, whose kernels and widths the paper does not state, are ``block="two_branch"``: two 3x3x3 and two 5x5x5
  convolutions of half the width, each with PReLU, and a 1x1x1 fusion. These sizes are ours.
* Position attention as in eq. 8 and 9 and as released: one head, no ``1/sqrt(d)``, softmax over the keys, queries and
  keys of an eighth of the width (eq. 6 says the full width, which would add 115,136 parameters). The several heads of
  fig. 3 and eq. 7 and the learned position code of eq. 2 are not in the released network; nor does the count leave
  room for them. The bias of the keys has no effect, since it adds the same to all logits of a query; it is kept.
* A level shrinks as released: maximum over 3x3x3 with stride 1, strided convolution, batch normalisation, ELU. Eq. 5
  has a one-dimensional convolution and pooling after it. Only three of five steps halve: N = H W L / 8^3.
* The released ELU gets the number of channels as its alpha, surely meant as that of a PReLU. Here alpha is 1, as in the
  ELU that the paper cites; ``elu_alpha="channels"`` is the released one.
* The gate scales the decoder's features by a signal from below, as released, not the encoder's skip; the sigmoid of eq.
  12 is printed with ``exp(+x)``, an error. Batch normalisation in it as released, needed for the count.
* Maps are brought to full size by trilinear interpolation (the paper: bilinear, in 2D) and their softmax is averaged
  (eq. 18; the paper's section 3.5 calls it the simplest weighted mean).
* Initialisation as released: Kaiming normal with a slope of 0.25, biases 0, weight of the attention 0.

Attention: PyTorch's fused kernels need memory linear in the number of positions. Those of the CPU, and the flash kernel
of CUDA, want values as wide as the keys and whole channels side by side; the CPU else falls back on the quadratic form
without a word. So the values are split into groups of the keys' width, each attended by the same queries and keys: the
same softmax, so that side by side they are the result, exactly. They go one after the other; as heads of one call they
would repeat the gradients of queries and keys. The split meets the conditions of the flash and of the memory-efficient
kernel of CUDA as well (PyTorch's ``sdp_utils.cpp``); it has not been run there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.checks import check_channels, check_option, check_sizes


class ResidualStage(nn.Module):
    """Two 3x3x3 convolutions with PReLU, around which the input is added; dropout of single elements.

    An input of one channel is added to every channel.
    """

    def __init__(self, c_in: int, c_out: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(c_in, c_out), *_convolution(c_out, c_out))
        self.dropout = nn.Dropout(dropout, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y += x
        return self.dropout(y)


class Down(nn.Module):
    """To the next level: maximum over 3x3x3 with stride 1, convolution, batch normalisation, ELU.

    The convolution is 2x2x2 with stride 2, or with ``halve=False`` 3x3x3 with stride 1.
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
        return self.body(_maximum_of_neighbours(x))


class PositionAttention(nn.Module):
    """Position attention (eq. 6, 8, 9): every position gets the mean of all values, weighted by likeness.

    Args:
        channels: width, a multiple of 8.
        linear: in memory linear in the number of positions, or with the explicit matrix of all pairs.
    """

    def __init__(self, channels: int, linear: bool = True) -> None:
        super().__init__()
        self.linear = linear
        self.widths = [channels // 8, channels // 8, channels]
        self.projection = nn.Conv3d(channels, sum(self.widths), kernel_size=1)  # queries, keys, values
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """``gamma`` times the attention, plus the features ``(B, C, x, y, z)``."""
        # positions (B, n, C) with their channels side by side; of features in channels_last_3d no copy is made
        tokens = x.flatten(2).transpose(1, 2)
        projected = F.linear(tokens, self.projection.weight.flatten(1), self.projection.bias)  # needs less than Conv3d
        q, k, v = projected.split(self.widths, 2)
        if self.linear:
            groups: list[Tensor] = []
            for features, values in zip(tokens.split(q.shape[2], 2), v.split(q.shape[2], 2)):
                attended = F.scaled_dot_product_attention(q[:, None], k[:, None], values[:, None], scale=1.0)
                groups.append(torch.addcmul(features, attended[:, 0], self.gamma))
            y = torch.cat(groups, 2)
        else:
            y = torch.addcmul(tokens, torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=2), v), self.gamma)
        return y.transpose(1, 2).unflatten(2, x.shape[2:])


class AttentionGate(nn.Module):
    """Attention gate (eq. 10 to 12): one coefficient per voxel, from the features and a signal of the same size."""

    def __init__(self, channels: int, bn_momentum: float) -> None:
        super().__init__()

        def projection(c_in: int, c_out: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv3d(c_in, c_out, kernel_size=1), nn.BatchNorm3d(c_out, momentum=bn_momentum))

        self.features, self.signal = (projection(channels, channels // 2) for _ in range(2))
        self.psi = projection(channels // 2, 1)

    def coefficient(self, x: Tensor, g: Tensor) -> Tensor:
        """``alpha`` ``(B, 1, x, y, z)``, in (0, 1)."""
        hidden = self.features(x)
        hidden += self.signal(g)
        return torch.sigmoid(self.psi(torch.relu_(hidden)))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return x * self.coefficient(x, g)


class TwoBranches(nn.Module):
    """Multi-scale block (eq. 14 to 17): branches of two 3x3x3 and two 5x5x5 convolutions, fused by one of 1x1x1."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.branches = nn.ModuleList(
            nn.Sequential(*_convolution(c_in, half, kernel), *_convolution(half, half, kernel)) for kernel in (3, 5)
        )
        self.fusion = nn.Conv3d(c_out, c_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fusion(torch.cat([branch(x) for branch in self.branches], 1))


class DecoderStage(nn.Module):
    """What comes from below joins the skip, is refined, added again, and gates the sum.

    Args:
        below: channels from below, which a transposed convolution brings to twice the size; None if they have the size
            and the width of this stage. They are then not joined with the skip, only added.
        skip: channels of the skip.
        channels: width of the stage.
        two_branches: refine by :class:`TwoBranches` in place of three 3x3x3 convolutions with PReLU.
        gate: gate the sum.
        dropout: probability to drop an element of the result in training.
        bn_momentum: of the gate.
    """

    __constants__: Sequence[str] = (
        "channels",
        "gated",
        "joins",
    )  # what the options exclude is not compiled by TorchScript

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
            self.up = nn.Sequential(nn.ConvTranspose3d(below, channels, kernel_size=2, stride=2), nn.PReLU(channels))
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


class Head(nn.Module):
    """Softmax map of a scale at full size, in float32: 1x1x1 convolution, trilinear interpolation, softmax."""

    def __init__(self, channels: int, num_classes: int, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, num_classes, kernel_size=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x).float()
        if self.scale != 1:
            logits = F.interpolate(logits, scale_factor=float(self.scale), mode="trilinear", align_corners=False)
        return torch.softmax(logits, 1)


class MPUNet(nn.Module):
    """MPU-Net (fig. 1); the defaults are the published network, of 21,507,255 used parameters.

    Args:
        in_channels: channels of the image: 1, or the width of the first level, since it is added to that level.
        out_channels: classes, the background included.
        channels: width of the five stages of the encoder, finest first, the last a multiple of 8; the bottom has twice
            the last.
        dropout: probability to drop an element in training, in all stages but those of full size.
        attention: position attention in "linear" memory, "explicit" with the matrix of all pairs, or "off". The first
            two are the same function of the same weights.
        gates: attention gates in the decoder.
        fusion: "mean" of the softmax maps of four scales, or the "finest" scale's map alone; then there are no others.
        block: "residual" or "two_branch", the stages of the decoder; see above.
        elu_alpha: alpha of the ELUs, or "channels" for as many as they have.
        bn_momentum: weight of the new batch in the running statistics of batch normalisation.
        dense: return the segmentation alone; the weights are the same.

    Raises:
        ValueError: an option outside the values above.
    """

    # Inference computes the level of full size in slabs of so many voxels along x. Around a slab the convolutions of
    # the decoder reach 3 voxels (two of 5x5x5: 4, and half the resolution needs an even number), the encoder's 2 more.
    slab, decoder_reach, encoder_reach = 32, 4, 2

    __constants__: Sequence[str] = ("decoder_reach", "dense", "encoder_reach", "fused", "slab")

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
        super().__init__()
        check_option("attention", attention, ("linear", "explicit", "off"))
        check_option("fusion", fusion, ("mean", "finest"))
        check_option("block", block, ("residual", "two_branch"))
        if isinstance(elu_alpha, str):
            check_option("elu_alpha", elu_alpha, ("channels",))
        if len(channels) != 5 or channels[-1] % 8 != 0:
            raise ValueError(f"channels={channels!r}: expected five widths, the last a multiple of 8")
        if in_channels not in (1, channels[0]):
            raise ValueError(f"in_channels={in_channels}: expected 1 or the width of the first level, {channels[0]}")
        self.in_channels = in_channels
        self.fused = fusion == "mean"
        self.dense = dense

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
            return DecoderStage(
                below,
                skip,
                c,
                two_branches=block == "two_branch",
                gate=gates,
                dropout=dropout,
                bn_momentum=bn_momentum,
            )

        self.decoder = nn.ModuleList(
            stage(below, skip, c, dropout) for below, skip, c in ((None, c3, c4), (c4, c2, c3), (c3, c1, c2))
        )
        scales = ((c4, 8), (c3, 4), (c2, 2)) if self.fused else ()
        self.coarse_heads = nn.ModuleList(Head(c, out_channels, scale) for c, scale in scales)
        self.finest = stage(c2, c0, c1, 0.0)
        self.head = Head(c1, out_channels, 1)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Class probabilities; they sum to 1 at every voxel.

        In inference, that is in eval mode and without gradients, the level of full size is computed in slabs along x,
        which takes less memory and gives the same values.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of 8.

        Returns:
            In float32 and at the size of the image, "seg" ``(B, out_channels, x, y, z)``, the mean of the softmax maps
            of four scales, and "aux_8", "aux_4" and "aux_2", the maps from an eighth, a quarter and half the
            resolution; with ``dense``, or the finest scale alone, no aux. With ``dense`` the tensor of "seg" itself.

        Raises:
            ValueError: another number of channels, or a spatial size that does not divide.
        """
        check_channels(image, self.in_channels)
        check_sizes(image, 8)
        size = image.shape[2]
        whole = self.training or torch.is_grad_enabled() or torch.jit.is_tracing()
        slabs = _slabs(size, size if whole else self.slab, self.decoder_reach)

        fine: list[Tensor] = []
        halves: list[Tensor] = []
        for start, stop, low, high in slabs:
            first, last = max(low - self.encoder_reach, 0), min(high + self.encoder_reach, size)
            skip = self.encoder[0](image[:, :, first:last])[:, :, low - first : high - first]
            halves.append(self.down[0](skip)[:, :, (start - low) // 2 : (stop - low) // 2])
            fine.append(skip)
        x = _joined(halves)
        halves.clear()
        skips: list[Tensor] = []
        for level, (stage, down) in enumerate(zip(self.encoder, self.down)):
            if level > 0:
                x = stage(x)
                skips.append(x)
                x = down(x)
        skips.pop()  # the last stage has none
        x = self.bottom(x)

        maps: list[Tensor] = []
        if self.fused:
            for stage, head in zip(self.decoder, self.coarse_heads):
                x = stage(x, skips.pop())
                maps.append(head(x))
        else:
            for stage in self.decoder:
                x = stage(x, skips.pop())
        parts: list[Tensor] = []
        for start, stop, low, high in slabs:
            y = self.finest(x[:, :, low // 2 : high // 2], fine.pop(0))
            parts.append(self.head(y[:, :, start - low : stop - low]))
        seg = _joined(parts)
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


class AdditiveUNet(nn.Module):
    """The paper's baseline U-Net (2,326,638 parameters): one convolution per level, no normalisation, added skips.

    Every scale has a softmax map; the finest is the result, the others are there for the loss. The graph is the
    released one; the paper has no more of it than the count in table 6.

    Args:
        in_channels: channels of the image.
        out_channels: classes, the background included.
        channels: width per level, finest first.
        dense: return the segmentation alone; the weights are the same.
    """

    __constants__: Sequence[str] = ("dense",)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        dense: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor = 2 ** len(channels)
        self.dense = dense
        last = 2  # as released, whatever the number of classes
        self.encoder = nn.ModuleList(
            nn.Sequential(_same_size(c_in, c), nn.MaxPool3d(2), nn.ReLU(inplace=True))
            for c_in, c in pairwise((in_channels, *channels))
        )

        def stage(c_in: int, c_out: int) -> nn.Sequential:
            up = nn.Upsample(scale_factor=2.0, mode="trilinear")
            return nn.Sequential(_same_size(c_in, c_out), up, nn.ReLU(inplace=True))

        self.decoder = nn.ModuleList(stage(c_in, c_out) for c_in, c_out in pairwise(reversed(channels)))
        self.last = stage(channels[0], last)
        self.coarse_heads = nn.ModuleList(
            Head(c, out_channels, 2**level) for level, c in reversed(list(enumerate(channels, 1))) if level > 1
        )
        self.head = Head(last, out_channels, 1)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Class probabilities at the size of the image, as those of :class:`MPUNet`; spatial sizes are multiples of 16.

        "seg" is the finest map, not a mean; the others are "aux_16", "aux_8" and "aux_4".

        Raises:
            ValueError: as :meth:`MPUNet.forward`.
        """
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisor)
        x = image
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = skips.pop()
        outputs: dict[str, Tensor] = {}
        for stage, head in zip(self.decoder, self.coarse_heads):
            if not self.dense:
                outputs["aux_" + str(head.scale)] = head(x)
            x = stage(x) + skips.pop()
        seg = self.head(self.last(x))
        if self.dense:
            return seg
        outputs["seg"] = seg
        return outputs


def _same_size(c_in: int, c_out: int, kernel: int = 3) -> nn.Conv3d:
    return nn.Conv3d(c_in, c_out, kernel, padding=kernel // 2)


def _convolution(c_in: int, c_out: int, kernel: int = 3) -> tuple[nn.Conv3d, nn.PReLU]:
    return _same_size(c_in, c_out, kernel), nn.PReLU(c_out)


def _normalised(c_in: int, c_out: int, bn_momentum: float) -> tuple[nn.Conv3d, nn.BatchNorm3d, nn.PReLU]:
    return _same_size(c_in, c_out), nn.BatchNorm3d(c_out, momentum=bn_momentum), nn.PReLU()


def _maximum_of_neighbours(x: Tensor) -> Tensor:
    """The maximum over 3x3x3 with stride 1.

    PyTorch's pooling gives the place of each maximum along with it, in 8 bytes, which only the gradient needs. Without
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


def _slabs(size: int, thickness: int, reach: int) -> list[tuple[int, int, int, int]]:
    """Slabs along an axis: first voxel and end, then the same with what is within reach of the slab."""
    slabs: list[tuple[int, int, int, int]] = []
    for start in range(0, size, thickness):
        stop = min(start + thickness, size)
        slabs.append((start, stop, max(start - reach, 0), min(stop + reach, size)))
    return slabs


def _joined(slabs: list[Tensor]) -> Tensor:
    return slabs[0] if len(slabs) == 1 else torch.cat(slabs, 2)


def _initialise(network: nn.Module) -> None:
    for m in network.modules():
        if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None:
            nn.init.kaiming_normal_(m.weight, a=0.25)
            nn.init.zeros_(m.bias)
