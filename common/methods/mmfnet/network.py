"""Define MMFNet, a multi-modality MRI fusion network for nasopharyngeal carcinoma.

H. Chen, Y. Qi, Y. Yin, T. Li, X. Liu, X. Li, G. Gong, L. Wang, "MMFNet: A multi-modality MRI fusion network for
segmentation of nasopharyngeal carcinoma", Neurocomputing 394 (2020), doi:10.1016/j.neucom.2020.02.002,
arXiv:1812.10033.

Each modality has an encoder. Fusion blocks with channel and spatial attention join the features of every level, and one
decoder reads them. Equation numbers are those of the arXiv text. Figure by figure, and every deviation with its
reason: ``docs/explanation/mmfnet.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Pool
from torch import Tensor, nn

from ...layers.checks import check_channels, check_option, check_sizes
from .blocks import ConvolutionBlock
from .convolution import Conv3d
from .fusion import FusionBlock


class Encoder(nn.Module):
    """Encode an input as VGG does (fig. 3, left): two 3x3x3 convolutions per level, then max-pooling.

    Args:
        in_channels: int, channels of the input.
        channels: ints, width of each level; one more convolution refines the pooled output of the last.
        norm: str or tuple, normalisation after each convolution, in MONAI's words.
        act: str or tuple, activation after each normalisation, in MONAI's words.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], norm: str | tuple, act: str | tuple) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvolutionBlock(c_in, c, norm, act), ConvolutionBlock(c, c, norm, act))
            for c_in, c in pairwise(widths)
        )
        self.pool = Pool[Pool.MAX, 3](kernel_size=2)
        self.bottom = ConvolutionBlock(widths[-1], widths[-1], norm, act)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the convolved features, which are the skips, from finest to coarsest, then the bottom features."""
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
            x = self.pool(x)
        features.append(self.bottom(x))
        return features


class DecoderBlock(nn.Module):
    """Double the size by a transposed convolution, concatenate with the skip, convolve 3x3x3 (fig. 3, right).

    Args:
        in_channels: int, channels from the level below.
        skip_channels: int, channels of the skip.
        out_channels: int, channels of the output.
        norm: str or tuple, normalisation, in MONAI's words.
        act: str or tuple, activation, in MONAI's words.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, norm: str | tuple, act: str | tuple
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv = ConvolutionBlock(out_channels + skip_channels, out_channels, norm, act)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([self.up(x), skip], 1))


class MMFNet(nn.Module):
    """Segment the tumour by MMFNet (fig. 2); the defaults are the paper's for T1, T2 and contrast-enhanced T1.

    They have 1,547,251 parameters. The network has a single form: it returns one tensor for training and for inference.
    For several labels, the last convolution has one sigmoid map for each of them, where the paper has the tumour's.

    Args:
        in_channels: int, modalities, one input channel each.
        out_channels: int, labels, each a probability map of its own; the background has none.
        channels: ints, width of an encoder per level, finest first.
        norm: str or tuple, normalisation, in MONAI's words.
        act: str or tuple, activation, in MONAI's words.
        separate_encoders: bool, one encoder per modality; False stacks the modalities in a single encoder with levels
            ``in_channels`` times as wide (the paper's single-encoder comparison).
        fusion: str, ``"attention"``, the fusion block of section III-B, or ``"concat"``, plain skips of all encoders
            (the paper's multi-encoder baseline; with one modality, the network of the first step of self-transfer).
        shared_mlp: bool, one MLP for all statistics of the channel attention (the paper's "base MMFNet").
        std_pool: str, where the standard deviation is pooled: ``"both"``, ``"channel"``, ``"spatial"`` or ``"none"``.
        reduction: int, reduction ratio r of the channel attention.
        bottleneck: str, ``"concat"``, or ``"fusion"`` for a fifth fusion block on the bottom features.

    Raises:
        ValueError: an option outside the values above.
    """

    encoder_modules = ("encoders",)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        channels: Sequence[int] = (8, 16, 32, 64),
        *,
        norm: str | tuple = "batch",
        act: str | tuple = "relu",
        separate_encoders: bool = True,
        fusion: str = "attention",
        shared_mlp: bool = False,
        std_pool: str = "both",
        reduction: int = 12,
        bottleneck: str = "concat",
    ) -> None:
        super().__init__()
        check_option("fusion", fusion, ("attention", "concat"))
        check_option("std_pool", std_pool, ("both", "channel", "spatial", "none"))
        check_option("bottleneck", bottleneck, ("concat", "fusion"))
        self.in_channels = in_channels
        self.channels_per_encoder = 1 if separate_encoders else in_channels
        self.divisors = [2 ** len(channels)] * 3
        self.frozen_encoders = False

        def fusion_block(width: int) -> FusionBlock:
            return FusionBlock(in_channels * width, width, reduction, shared_mlp, std_pool, norm, act)

        if separate_encoders:
            self.encoders = nn.ModuleList(Encoder(1, channels, norm, act) for _ in range(in_channels))
        else:
            widths = [in_channels * c for c in channels]
            self.encoders = nn.ModuleList([Encoder(in_channels, widths, norm, act)])
        fused = fusion == "attention"
        self.fusions = nn.ModuleList(fusion_block(c) if fused else nn.Identity() for c in channels)
        self.bottleneck = fusion_block(channels[-1]) if bottleneck == "fusion" else nn.Identity()

        decoder = []
        below = channels[-1] if bottleneck == "fusion" else in_channels * channels[-1]
        for c in reversed(channels):
            decoder.append(DecoderBlock(below, c if fused else in_channels * c, c, norm, act))
            below = c
        self.decoder = nn.ModuleList(decoder)
        self.head = Conv3d(below, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict foreground probabilities.

        Args:
            x: ``(B, in_channels, x, y, z)``, every spatial size a multiple of ``2 ** len(channels)``.

        Returns:
            ``(B, out_channels, x, y, z)`` in float32, values in [0, 1].

        Raises:
            ValueError: another number of channels, or a spatial size that does not divide.
        """
        check_channels(x, self.in_channels)
        check_sizes(x, self.divisors)
        modalities = x.split(self.channels_per_encoder, 1)
        encoded: list[list[Tensor]] = []  # for each encoder the skips, then the bottom features
        for i, encoder in enumerate(self.encoders):
            encoded.append(encoder(modalities[i]))
        x = self.bottleneck(torch.cat([features.pop() for features in encoded], 1))

        skips: list[Tensor] = []
        for level, fuse in enumerate(self.fusions):
            skips.append(fuse(torch.cat([features[level] for features in encoded], 1)))
        for block in self.decoder:
            x = block(x, skips.pop())
        return torch.sigmoid(self.head(x).float())

    @torch.jit.ignore
    def load_encoders(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Initialise the encoders from single-modality networks (self-transfer, section III-C).

        Args:
            states: for each modality the state dict of an ``MMFNet(in_channels=1, fusion="concat", ...)``; only its
                encoder is used, with its batch-normalisation statistics.

        Raises:
            ValueError: the number of state dicts differs from the number of encoders.
        """
        if len(states) != len(self.encoders):
            raise ValueError(
                f"states: expected {len(self.encoders)} state dicts, one for each encoder, found {len(states)}"
            )
        prefix = "encoders.0."
        for encoder, state in zip(self.encoders, states):
            encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})

    @torch.jit.ignore
    def freeze_encoders(self, frozen: bool) -> None:
        """Freeze the encoders' weights and batch-normalisation statistics (the paper's warm-up), or thaw them."""
        self.frozen_encoders = frozen
        self.encoders.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> MMFNet:
        super().train(mode)
        if self.frozen_encoders:
            self.encoders.eval()
        return self
