"""Build MONAI's DynUNet with the levels of nnU-Net, and run it without hidden state.

F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 18 (2021) 203-211, supplementary note 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from ..errors import InputError

SMALLEST = 4  # voxels of an axis at the coarsest level
SIMILAR = 2.0  # ratio of two voxel edges from which the longer one is not pooled
MOST_CHANNELS = 320


def dynunet(
    in_channels: int,
    out_channels: int,
    patch_size: Sequence[int],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    width: int = 32,
    deep_supervision: bool = True,
) -> DynUNet:
    """Return MONAI's DynUNet with the levels that nnU-Net would choose for a patch.

    From level to level, an axis is halved while at least 4 voxels remain and its size is even. An axis waits while its
    voxels have twice the edge of the finest such axis or more. The kernel is 1 along an axis until its voxels have less
    than twice the edge of the finest axis, and 3 from there on. nnU-Net pads an odd size; here the axis stops.

    Args:
        in_channels: channels of the image.
        out_channels: classes, the background included.
        patch_size: ``(x, y, z)`` in voxels.
        spacing: voxel edges in mm; -1, an axis that keeps the spacing of the scan, counts as the finest.
        width: channels of the first level; they double at each level, up to 320 or ``width``.
        deep_supervision: heads for the levels between the finest and the two coarsest.

    Raises:
        InputError: the patch allows fewer than two halvings.
    """
    strides, kernels = levels_of(patch_size, spacing)
    if len(strides) < 3:
        raise InputError(
            f"patch_size {list(patch_size)} with a spacing of {list(spacing)} mm gives {len(strides)} levels, expected "
            "3 or more; give larger patches, with sizes that 4 divides"
        )
    heads = len(strides) - 3
    return DynUNet(
        3,
        in_channels,
        out_channels,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[min(width * 2**level, max(MOST_CHANNELS, width)) for level in range(len(strides))],
        deep_supervision=deep_supervision and heads > 0,
        deep_supr_num=max(heads, 1),
    )


def levels_of(patch_size: Sequence[int], spacing: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the stride into each level, the finest first, and its kernel size; arguments as for :func:`dynunet`."""
    size = list(patch_size)
    finest = min((edge for edge in spacing if edge > 0), default=1.0)
    edges = [edge if edge > 0 else finest for edge in spacing]
    strides, kernels = [[1] * len(size)], [_kernel(edges)]
    while True:
        halved = [n >= 2 * SMALLEST and n % 2 == 0 for n in size]
        finest = min((edge for edge, can in zip(edges, halved) if can), default=math.inf)
        halved = [can and edge < SIMILAR * finest for can, edge in zip(halved, edges)]
        if not any(halved):
            return strides, kernels
        strides.append([2 if half else 1 for half in halved])
        size = [n // step for n, step in zip(size, strides[-1])]
        edges = [edge * step for edge, step in zip(edges, strides[-1])]
        kernels.append([max(before, here) for before, here in zip(kernels[-1], _kernel(edges))])


def _kernel(edges: Sequence[float]) -> list[int]:
    return [3 if edge < SIMILAR * min(edges) else 1 for edge in edges]


class SupervisedDynUNet(nn.Module):
    """Run the modules of MONAI's DynUNet, and return the maps of its heads as a list.

    DynUNet itself keeps the maps of its heads in the module, computes them for inference too, returns another shape
    in training mode, and registers each block twice. The values are the same; the maps of the heads are interpolated
    linearly.

    Args:
        network: DynUNet, of which this module takes over the blocks.
    """

    def __init__(self, network: DynUNet) -> None:
        super().__init__()
        self.input_block = network.input_block
        self.downsamples = network.downsamples
        self.bottleneck = network.bottleneck
        self.upsamples = network.upsamples
        self.output_block = network.output_block
        self.heads = network.deep_supervision_heads if network.deep_supervision else nn.ModuleList()

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of full size, ``(B, out_channels, x, y, z)``."""
        return self.output_block(self.decode(image)[0])

    def every_scale(self, image: Tensor) -> list[Tensor]:
        """Return the logits of full size and those of each head, all at full size, finest first."""
        features = self.decode(image)
        maps = [self.output_block(features[0])]
        for level, head in enumerate(self.heads):
            size = list(image.shape[2:])
            maps.append(F.interpolate(head(features[level + 1]).float(), size, mode="trilinear", align_corners=False))
        return maps

    def decode(self, image: Tensor) -> list[Tensor]:
        """Return the features of each level of the decoder, finest first."""
        x = self.input_block(image)
        skips = [x]
        for block in self.downsamples:
            x = block(x)
            skips.append(x)
        x = self.bottleneck(x)
        features: list[Tensor] = []
        for block in self.upsamples:
            x = block(x, skips.pop())
            features.insert(0, x)
        return features
