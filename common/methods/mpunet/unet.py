"""Build the baseline that the MPU-Net paper compares with: a U-Net with added skips.

Z. Yu, S. Han, Z. Song, "3D Medical Image Segmentation based on multi-scale MPU-Net", arXiv:2307.05799 (2023), table 6.
The graph is the one that the authors released; the paper states its number of parameters only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ...layers import TwoForms
from ...layers.checks import check_channels, check_sizes
from .blocks import Head, initialise


class AdditiveUNet(TwoForms):
    """Segment organs by the paper's baseline U-Net (2,326,638 parameters).

    It has one convolution per level, no normalisation, and adds its skips. Every scale has a softmax map; the finest is
    the result, the loss takes all.

    Args:
        in_channels: int, channels of the image.
        out_channels: int, classes, the background included.
        channels: ints, width per level, finest first.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.
    """

    encoder_modules = ("encoder",)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        dense: bool = False,
    ) -> None:
        super().__init__(dense)
        self.in_channels = in_channels
        self.divisors = [2 ** len(channels)] * 3
        # two as released; with more classes, so few features die in the first updates
        last = 2 if out_channels == 2 else channels[0] // 2
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv3d(c_in, c, 3, padding=1), nn.MaxPool3d(2), nn.ReLU(inplace=True))
            for c_in, c in pairwise((in_channels, *channels))
        )

        def stage(c_in: int, c_out: int) -> nn.Sequential:
            up = nn.Upsample(scale_factor=2.0, mode="trilinear")
            return nn.Sequential(nn.Conv3d(c_in, c_out, 3, padding=1), up, nn.ReLU(inplace=True))

        self.decoder = nn.ModuleList(stage(c_in, c_out) for c_in, c_out in pairwise(reversed(channels)))
        self.last = stage(channels[0], last)
        self.coarse_heads = nn.ModuleList(
            Head(c, out_channels, 2**level) for level, c in reversed(list(enumerate(channels, 1))) if level > 1
        )
        self.head = Head(last, out_channels, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Predict class probabilities; they sum to 1 at every voxel.

        Args:
            image: ``(B, in_channels, x, y, z)``, every spatial size a multiple of ``2 ** len(channels)``.

        Returns:
            Maps ``(B, out_channels, x, y, z)`` in float32. For training: ``aux_16``, ``aux_8``, ``aux_4``, the maps of
            the coarser scales, and ``seg``, the finest map. For inference: the tensor of ``seg``.

        Raises:
            ValueError: another number of channels, or a spatial size that does not divide.
        """
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisors)
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
