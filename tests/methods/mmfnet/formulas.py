"""Compute the equations of MMFNet as the paper writes them, for comparison with the network."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from common.methods.mmfnet import MMFNet
from common.methods.mmfnet.fusion import FusionBlock

from ..naive import naive_convolution, naive_norm
from ..networks import set_trained

BATCH_NORM_RELU = {"norm": "batch", "act": "relu"}


def fusion_block(shared_mlp: bool = False, std_pool: str = "both") -> FusionBlock:
    """Build a block for three modalities of 4 channels, in eval mode with statistics as after training."""
    block = FusionBlock(12, 4, reduction=3, shared_mlp=shared_mlp, std_pool=std_pool, **BATCH_NORM_RELU)
    return trained_batch_norms(block).eval()


def trained_batch_norms(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if isinstance(m, nn.BatchNorm3d):
            set_trained(m)
    return module


def naive_mlp(x: Tensor, mlp: nn.Sequential) -> Tensor:
    hidden = (x @ mlp[0].weight.T + mlp[0].bias).clamp(min=0)
    return hidden @ mlp[2].weight.T + mlp[2].bias


def naive_fusion(block: FusionBlock, f_ori: Tensor, shared_mlp: bool, std_pool: str) -> Tensor:
    mlps = block.channel_attention.mlps
    voxels = f_ori.shape[2] * f_ori.shape[3] * f_ori.shape[4]
    f_avg = f_ori.sum((2, 3, 4)) / voxels  # (8)
    f_max = f_ori.flatten(2).sort(2).values[:, :, -1]  # (9)
    f_std = (((f_ori - f_avg[:, :, None, None, None]) ** 2).sum((2, 3, 4)) / voxels + 1e-5) ** 0.5  # (10)
    logits = naive_mlp(f_avg, mlps[0]) + naive_mlp(f_max, mlps[0 if shared_mlp else 1])
    if std_pool in ("both", "channel"):
        logits = logits + naive_mlp(f_std, mlps[0 if shared_mlp else 2])
    w_c = 1 / (1 + torch.exp(-logits))[:, :, None, None, None]  # (7)
    f_c = w_c * f_ori  # (4)

    channels = f_c.shape[1]
    pooled = [f_c.sum(1) / channels, f_c.sort(1).values[:, -1]]
    if std_pool in ("both", "spatial"):
        pooled.append((((f_c - pooled[0][:, None]) ** 2).sum(1) / channels + 1e-5) ** 0.5)
    w_s = 1 / (1 + torch.exp(-naive_convolution(torch.stack(pooled, 1), block.spatial_attention.conv)))  # (11)
    f_s = w_s * f_c  # (5)

    first, second = block.residual_fusion.refine
    f_r = naive_convolution(f_ori + f_s, block.residual_fusion.reduce)  # (12)
    refined = naive_norm(naive_convolution(f_r, first.conv), first.adn.N).clamp(min=0)
    return f_r + naive_convolution(refined, second)  # (6), (13)


def naive_mmfnet(network: MMFNet, x: Tensor) -> Tensor:
    """Compute figure 3 in eval mode, with plain skips if the network has no fusion blocks."""

    def convolution(x: Tensor, block: nn.Module) -> Tensor:
        return naive_norm(naive_convolution(x, block.conv), block.adn.N).clamp(min=0)

    def halve(x: Tensor) -> Tensor:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).amax((5, 6, 7))

    def double(x: Tensor, up: nn.Module) -> Tensor:
        larger = torch.zeros(x.shape[0], up.weight.shape[1], *(2 * size for size in x.shape[2:]))
        for i, j, k in itertools.product((0, 1), repeat=3):
            larger[:, :, i::2, j::2, k::2] = torch.einsum("co,bcxyz->boxyz", up.weight[:, :, i, j, k], x)
        return larger + up.bias.view(1, -1, 1, 1, 1)

    levels: list[list[Tensor]] = [[] for _ in range(len(network.fusions) + 1)]
    for i, encoder in enumerate(network.encoders):
        features = x[:, i : i + 1]
        for level, (first, second) in enumerate(encoder.blocks):
            features = convolution(convolution(features, first), second)
            levels[level].append(features)
            features = halve(features)
        levels[-1].append(convolution(features, encoder.bottom))

    features = torch.cat(levels[-1], 1)
    for level, block in zip(reversed(range(len(network.fusions))), network.decoder, strict=True):
        skip = torch.cat(levels[level], 1)
        if isinstance(network.fusions[level], FusionBlock):
            skip = naive_fusion(network.fusions[level], skip, shared_mlp=False, std_pool="both")
        features = convolution(torch.cat([double(features, block.up), skip], 1), block.conv)
    return 1 / (1 + torch.exp(-naive_convolution(features, network.head)))
