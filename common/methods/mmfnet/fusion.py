"""Fuse the features of all modalities by channel and spatial attention (section III-B, fig. 4).

H. Chen et al., "MMFNet", Neurocomputing 394 (2020), arXiv:1812.10033. Equation numbers are those of the arXiv text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import ConvolutionBlock
from .convolution import Conv3d

PART = 2**17  # elements that are computed at once; they stay in the cache


class ChannelAttention(nn.Module):
    """Compute channel weights ``W_c`` (eq. 7 to 10): the sigmoid of the sum of one MLP per global statistic.

    Args:
        channels: int, channels of the features, and of the weights.
        reduction: int, reduction ratio; the hidden width is ``max(1, channels // reduction)``.
        shared_mlp: bool, one MLP for all statistics (the paper's "base" network) instead of one each.
        use_std: bool, add the standard deviation to average and maximum.
    """

    def __init__(self, channels: int, reduction: int, shared_mlp: bool, use_std: bool) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.shared_mlp = shared_mlp
        self.use_std = use_std
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
            for _ in range(1 if shared_mlp else 2 + use_std)
        )

    def forward(self, f_ori: Tensor) -> Tensor:
        flat = f_ori.flatten(2)
        if self.use_std:
            variance, average = torch.var_mean(flat, dim=2, correction=0)
            pooled = [average, flat.amax(2), _standard_deviation(variance)]
        else:
            pooled = [flat.mean(2), flat.amax(2)]
        return self.weights(pooled)[:, :, None, None, None]

    def weights(self, pooled: list[Tensor]) -> Tensor:
        """Return ``W_c`` ``(B, C)`` for the statistics of the channels, each ``(B, C)``."""
        weights = torch.zeros_like(pooled[0])
        for mlp in self.mlps:
            if self.shared_mlp:
                for values in pooled:
                    weights = weights + mlp(values)
            else:
                weights = weights + mlp(pooled.pop(0))
        return torch.sigmoid(weights)


class SpatialAttention(nn.Module):
    """Compute spatial weights ``W_s`` (eq. 11): a 3x3x3 convolution of statistics over the channels, sigmoid.

    Args:
        use_std: bool, add the standard deviation to average and maximum.
    """

    def __init__(self, use_std: bool) -> None:
        super().__init__()
        self.use_std = use_std
        self.conv = Conv3d(2 + use_std, 1)

    def forward(self, f_c: Tensor) -> Tensor:
        average = f_c.mean(1, keepdim=True)
        pooled = [average, f_c.amax(1, keepdim=True)]
        if self.use_std:
            variance = (f_c - average).square().mean(1, keepdim=True)
            pooled.append(_standard_deviation(variance))
        return torch.sigmoid(self.conv(torch.cat(pooled, 1)))


class ResidualFusion(nn.Module):
    """Reduce to the decoder's width and refine within slices (eq. 12, 13), without an activation at the end.

    Args:
        in_channels: int, channels of the features.
        out_channels: int, width of the decoder at this level.
        norm: str or tuple, normalisation, in MONAI's words.
        act: str or tuple, activation, in MONAI's words.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str | tuple, act: str | tuple) -> None:
        super().__init__()
        self.reduce = Conv3d(in_channels, out_channels, 1)
        self.refine = nn.Sequential(
            ConvolutionBlock(out_channels, out_channels, norm, act, kernel_size=(3, 3, 1)),
            Conv3d(out_channels, out_channels, (3, 3, 1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.refined(self.reduce(features))

    def refined(self, f_r: Tensor) -> Tensor:
        """Return the sum of the reduced features and their refinement."""
        refined = self.refine(f_r)
        refined += f_r
        return refined


class FusionBlock(nn.Module):
    """Fuse the concatenated features of all encoders (fig. 4, eq. 4 to 6).

    Args:
        in_channels: int, channels of all encoders together.
        out_channels: int, channels of the result.
        reduction, shared_mlp: as for :class:`ChannelAttention`.
        std_pool, norm, act: as for :class:`MMFNet`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        reduction: int,
        shared_mlp: bool,
        std_pool: str,
        norm: str | tuple,
        act: str | tuple,
    ) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(in_channels, reduction, shared_mlp, std_pool in ("both", "channel"))
        self.spatial_attention = SpatialAttention(std_pool in ("both", "spatial"))
        self.residual_fusion = ResidualFusion(in_channels, out_channels, norm, act)

    def forward(self, f_ori: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.whole(f_ori)
        return self.computed(f_ori)

    def whole(self, f_ori: Tensor) -> Tensor:
        """Return the fused features by the equations, one map after the other."""
        f_c = self.channel_attention(f_ori) * f_ori
        w_s = self.spatial_attention(f_c)
        return self.residual_fusion(torch.addcmul(f_ori, f_c, w_s))  # F_ori + F_s without a tensor for F_s

    @torch.jit.ignore
    def computed(self, f_ori: Tensor) -> Tensor:
        """Return the fused features, in parts if no gradient is needed and the channels lie last in memory.

        The parts keep the statistics in float32, so weights of another type take the equations.
        """
        special = torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()
        special = special or self.residual_fusion.reduce.weight.dtype != torch.float32
        if special or f_ori.device.type != "cpu" or not f_ori.is_contiguous(memory_format=torch.channels_last_3d):
            return self.whole(f_ori)
        return self.in_parts(f_ori)

    @torch.jit.ignore
    def in_parts(self, f_ori: Tensor) -> Tensor:
        """Return the fused features without a map of all channels but ``F_ori``.

        The reduction R is linear, so ``R (F_ori + F_s) = R F_ori + W_s (R W_c) F_ori``: two matrix products.
        """
        voxels = f_ori.as_subclass(Tensor).permute(0, 2, 3, 4, 1)  # a MetaTensor takes longer for each part
        size, rows = voxels.shape[:4], voxels.flatten(1, 3)
        average, highest, variance = channel_statistics(voxels)
        of_channels = [average, highest]
        if self.channel_attention.use_std:
            of_channels.append(_standard_deviation(variance))
        w_c = self.channel_attention.weights(of_channels).float()

        reduce = self.residual_fusion.reduce
        assert reduce.bias is not None
        kernel, bias = reduce.weight.flatten(1), reduce.bias.to(rows.dtype)
        pooled = rows.new_empty(*rows.shape[:2], self.spatial_attention.conv.in_channels)
        f_r, attended = (rows.new_empty(*rows.shape[:2], len(kernel)) for _ in range(2))
        for case in range(len(rows)):
            of_f_r, of_attended = (k.to(rows.dtype).t() for k in (kernel, kernel * w_c[case]))
            maps = (_parts(m[case], rows.shape[2]) for m in (rows, pooled, f_r, attended))
            for part, statistics, reduced, weighted in zip(*maps):
                f_c = part * w_c[case]
                mean = f_c.mean(1, keepdim=True)
                statistics[:, 0] = mean[:, 0]
                statistics[:, 1] = f_c.amax(1)
                if self.spatial_attention.use_std:
                    statistics[:, 2] = _standard_deviation(f_c.sub_(mean).square_().mean(1))
                torch.addmm(bias, part, of_f_r, out=reduced)
                torch.mm(part, of_attended, out=weighted)
        w_s = torch.sigmoid(self.spatial_attention.conv(pooled.view(*size, -1).permute(0, 4, 1, 2, 3)))
        f_r.addcmul_(attended, w_s.permute(0, 2, 3, 4, 1).reshape(*rows.shape[:2], 1))
        return self.residual_fusion.refined(f_r.view(*size, -1).permute(0, 4, 1, 2, 3))


def channel_statistics(voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return average, maximum and variance of each channel over the voxels ``(B, x, y, z, C)``, each ``(B, C)``."""
    cases = [_statistics(case.flatten(0, 1)) for case in voxels]
    average, highest, variance = (torch.stack(values) for values in zip(*cases))
    return average, highest, variance


def _statistics(lines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return average, maximum and variance of the channels ``(C,)`` of one case ``(n, z, C)``.

    The squared deviations from the average of all are those within each part and those between the parts.
    """
    averages, highest, squares, shares = [], [], [], []
    for part in _parts(lines.flatten(1), lines[0].numel()):
        values = part.float()
        averages.append(values.mean(0))
        highest.append(values.amax(0))
        squares.append((values - averages[-1]).square_().sum(0))
        shares.append(len(values) / len(lines))
    of_parts, within = (torch.stack(values).view(-1, *lines.shape[1:]) for values in (averages, squares))
    weights = of_parts.new_tensor(shares).view(-1, 1, 1) / lines.shape[1]
    average = (weights * of_parts).sum((0, 1))
    variance = within.sum((0, 1)) / lines[..., 0].numel() + (weights * (of_parts - average).square()).sum((0, 1))
    return average, torch.stack(highest).view_as(of_parts).amax((0, 1)), variance


def _parts(rows: Tensor, width: int) -> Sequence[Tensor]:
    """Return some rows at a time, so many that rows of this width stay in the cache."""
    return rows.split(max(1, PART // width))


def _standard_deviation(variance: Tensor) -> Tensor:
    return (variance + 1e-5).sqrt()
