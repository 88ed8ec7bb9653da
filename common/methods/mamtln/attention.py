"""Build the attention modules of MA-MTLN: visual, adaptive spatial, and task-aware.

Y. Zhang et al., IEEE Transactions on Medical Imaging 40 (2021), doi:10.1109/TMI.2021.3062902.
Equation and figure numbers are those of the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import PReLU
from .blocks import Fusion, Merge, PointwiseConvolution, convolution, downsampling, resize

SCALES = 4
DILATIONS = (1, 3, 5, (7, 7, 5))  # of the last convolution of each VA branch
BRANCHES = (4, 3, 2, 2)  # of the VA block of each scale


class VABlock(nn.Module):
    """Mask the input by branches with growing receptive fields, and fuse the results (VA block, fig. 3a).

    Branch n is a chain of convolutions with nothing between them and a sigmoid at its end: a 1x1x1 one or n - 1 of
    3x3x3, then a dilated one.

    Args:
        width: int, channels of the input, the masks and the result.
        branches: int, 1 to 4.
    """

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        chains = []
        for n, dilation in enumerate(DILATIONS[:branches]):
            before = [nn.Conv3d(width, width, 3, padding=1) for _ in range(n)] or [PointwiseConvolution(width, width)]
            chains.append(nn.Sequential(*before, nn.Conv3d(width, width, 3, padding=dilation, dilation=dilation)))
        self.branches = nn.ModuleList(chains)
        self.fuse = PointwiseConvolution(branches * width, width)
        self.act = PReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.fuse(torch.cat([torch.sigmoid_(chain(x)) * x for chain in self.branches], 1))
        y += x
        return self.act(y)


class WeightedFusion(nn.Module):
    """Average n maps of one size with learned weights, then Swish (fast normalised fusion, eq. 1, 2).

    Args:
        n: int, number of maps.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def weights(self) -> Tensor:
        """Return the weights ``(n,)``, none below 0; their sum is just below 1."""
        weight = torch.relu(self.weight)
        return weight / (weight.sum() + 1e-4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        weights = self.weights()
        y = maps[0] * weights[0]
        for i in range(1, len(maps)):
            y.addcmul_(maps[i], weights[i].to(y.dtype))
        return F.silu(y)


class VALayer(nn.Module):
    """Pass the scales from coarse to fine through VA blocks, then back (bidirectional VA layer, eq. 1, 2).

    Args:
        width: int, channels of all maps.
        norm_groups: int, groups of the normalisation.
    """

    def __init__(self, width: int, norm_groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(VABlock(width, branches) for branches in BRANCHES)
        self.top_down = nn.ModuleList(WeightedFusion(2) for _ in range(SCALES - 1))
        self.bottom_up = nn.ModuleList(WeightedFusion(2 if scale == 0 else 3) for scale in range(SCALES))
        self.down = nn.ModuleList(downsampling(width, 1, norm_groups) for _ in range(SCALES - 2))

    def forward(self, p: list[Tensor]) -> list[Tensor]:
        """Return ``F_1^V`` to ``F_4^V`` ``(B, width, x, y, z)``, of the sizes of the projected features ``p``."""
        i4 = self.blocks[3](p[3])
        i3 = self.blocks[2](self.top_down[2]([p[2], i4]))
        i2 = self.blocks[1](self.top_down[1]([p[1], resize(i3, p[1])]))
        i1 = self.blocks[0](self.top_down[0]([p[0], resize(i2, p[0])]))
        v1 = self.bottom_up[0]([p[0], i1])
        v2 = self.bottom_up[1]([p[1], i2, self.down[0](v1)])
        v3 = self.bottom_up[2]([p[2], i3, self.down[1](v2)])
        return [v1, v2, v3, self.bottom_up[3]([p[3], i4, v3])]


class ASAModule(nn.Module):
    """Weigh the features of one scale against the multi-scale ones, voxel by voxel (ASA, fig. 3b, eq. 3 to 6).

    Args:
        width: int, channels of the features.
        norm_groups: int, groups of the normalisation; half as many for a strided or a narrow map.
        down_steps: int, strided convolutions between the multi-scale features and this scale.
        refine: bool, multiply by the multi-scale features once more and fuse with those of the scale (released).
    """

    def __init__(self, width: int, norm_groups: int, down_steps: int, refine: bool) -> None:
        super().__init__()
        self.down_steps = down_steps
        self.down = downsampling(width, 3, norm_groups) if down_steps else None
        self.mask = nn.Sequential(
            convolution(width, width, 1, norm_groups),
            convolution(width, width, 3, norm_groups),
            nn.Conv3d(width, width, 3, padding=1),
        )
        self.reduce = nn.ModuleList(convolution(width, width // 4, 1, norm_groups // 2, bias=False) for _ in range(2))
        self.weigh = PointwiseConvolution(2 * (width // 4), 2)
        self.refine = Fusion(2 * width, width, norm_groups) if refine else None

    def matched(self, m: Tensor) -> Tensor:
        """Return the multi-scale features at the size of this scale (``f_op``, eq. 4)."""
        if self.down is not None:
            for _ in range(self.down_steps):
                m = self.down(m)
        return m

    def weights(self, v: Tensor, m: Tensor) -> Tensor:
        """Return ``w^n`` and ``w^m`` (eq. 3, 5) as ``(B, 2, x, y, z)``; their sum is 1 in every voxel."""
        return torch.softmax(self.weigh(torch.cat([self.reduce[0](v), self.reduce[1](m)], 1)), 1)

    def masks(self, x: Tensor) -> Tensor:
        """Return sigma of eq. 6, in the shape of ``x``."""
        return torch.sigmoid_(self.mask(x))

    def forward(self, v: Tensor, multi_scale: Tensor) -> Tensor:
        """Return ``F_s^A`` of this scale.

        Args:
            v: ``F_s^V`` ``(B, width, x, y, z)``.
            multi_scale: multi-scale features ``(B, width, ...)`` at the size of scale 1.
        """
        m = self.matched(multi_scale)
        weights = self.weights(v, m).to(v.dtype)
        both = torch.cat([v, m])  # one call for both: group normalisation looks at single cases
        of_v, of_m = (self.masks(both) * both).chunk(2)
        y = (of_v * weights[:, :1]).addcmul_(of_m, weights[:, 1:])  # eq. 6
        return y if self.refine is None else self.refine([v, y * m])


class TaskAttention(nn.Module):
    """Mask the features of one scale by what they and other maps say together (task-aware attention, eq. 7, 8).

    Args:
        in_channels: int, channels of all maps together.
        width: int, channels of the last map, the mask and the result.
        norm_groups: int, groups of the normalisation.
        attention: bool, False takes the merged maps in place of the masked features.
    """

    def __init__(self, in_channels: int, width: int, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.merge = Merge(in_channels, width, norm_groups)
        self.mask = PointwiseConvolution(width, width) if attention else None
        self.refine = convolution(width, width, 3, norm_groups)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return ``(B, width, x, y, z)``, of the size of the last map, the one that is masked."""
        x = self.merge(maps)
        if self.mask is not None:
            x = torch.sigmoid_(self.mask(x)) * maps[-1]
        return self.refine(x)
