"""The equations of MMFNet as they are written, for comparison with the network."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from common.methods.mmfnet.network import FusionBlock

BATCH_NORM_RELU = {"norm": "batch", "act": "relu"}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def fusion_block(shared_mlp: bool = False, std_pool: str = "both") -> FusionBlock:
    """Three modalities of 4 channels, in eval mode with statistics as after training."""
    block = FusionBlock(12, 4, reduction=3, shared_mlp=shared_mlp, std_pool=std_pool, **BATCH_NORM_RELU)
    return trained_batch_norms(block).eval()


def trained_batch_norms(module: nn.Module) -> nn.Module:
    for m in module.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.3)
    return module


def naive_convolution(x: Tensor, conv: nn.Module) -> Tensor:
    """Sum over the kernel's offsets of the shifted, zero-padded input times the weight."""
    *_, k0, k1, k2 = conv.weight.shape
    padded = nn.functional.pad(x, (k2 // 2, k2 // 2, k1 // 2, k1 // 2, k0 // 2, k0 // 2))
    size_x, size_y, size_z = x.shape[2:]
    total = torch.zeros(x.shape[0], conv.weight.shape[0], *x.shape[2:])
    for i, j, k in itertools.product(range(k0), range(k1), range(k2)):
        shifted = padded[:, :, i : i + size_x, j : j + size_y, k : k + size_z]
        total += torch.einsum("oc,bcxyz->boxyz", conv.weight[:, :, i, j, k], shifted)
    return total if conv.bias is None else total + conv.bias.view(1, -1, 1, 1, 1)


def naive_batch_norm(x: Tensor, norm: nn.Module) -> Tensor:
    mean, var, weight, bias = (
        v.view(1, -1, 1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + norm.eps) ** 0.5 * weight + bias


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
    refined = naive_batch_norm(naive_convolution(f_r, first.conv), first.adn.N).clamp(min=0)
    return f_r + naive_convolution(refined, second)  # (6), (13)
