"""Compute the equations of MPU-Net as the paper writes them, for comparison with the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mpunet import MPUNet
from common.methods.mpunet.attention import AttentionGate, PositionAttention
from common.methods.mpunet.network import DecoderStage

NARROW = {"channels": (4, 4, 8, 8, 16)}


def lively(network: nn.Module) -> nn.Module:
    """Randomise biases, slopes, statistics and the weight of the attention, so that each has an effect."""
    with torch.no_grad():
        for m in network.modules():
            if isinstance(m, nn.BatchNorm3d):
                m.running_mean.normal_(std=0.5)
                m.running_var.uniform_(0.5, 2)
            elif isinstance(m, nn.PReLU):
                m.weight.uniform_(0.05, 0.6)
            elif isinstance(m, PositionAttention):
                m.gamma.fill_(0.7)
        for name, p in network.named_parameters():
            if name.endswith("bias"):
                p.normal_(std=0.3)
    return network.eval()


def plain_stage(stage: DecoderStage, below: Tensor, skip: Tensor, first: bool) -> Tensor:
    u, y = below, skip
    if not first:
        u = F.prelu(F.conv_transpose3d(below, stage.up[0].weight, stage.up[0].bias, 2), stage.up[1].weight)
        y = torch.cat([u, skip], 1)
    for i in (0, 2, 4):
        y = convolved(stage.refine, i, y)
    return plain_gate(stage.gate, y + u, u)


def convolved(body: nn.Sequential, i: int, x: Tensor) -> Tensor:
    return F.prelu(F.conv3d(x, body[i].weight, body[i].bias, padding=1), body[i + 1].weight)


def normed(x: Tensor, norm: nn.BatchNorm3d) -> Tensor:
    mean, var, weight, bias = (
        t[None, :, None, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def projected(body: nn.Sequential, x: Tensor) -> Tensor:
    weight = body[0].weight[:, :, 0, 0, 0]
    return normed(torch.einsum("oc,bcxyz->boxyz", weight, x) + body[0].bias[None, :, None, None, None], body[1])


def plain_gate(gate: AttentionGate, x: Tensor, g: Tensor) -> Tensor:
    hidden = (projected(gate.features, x) + projected(gate.signal, g)).clamp(min=0)
    return x / (1 + torch.exp(-projected(gate.psi, hidden)))


def plain_attention(attention: PositionAttention, x: Tensor) -> Tensor:
    """Compute eq. 8 and 9 with the matrix of all pairs, unscaled."""
    c = x.shape[1]
    weight, bias = attention.projection.weight[:, :, 0, 0, 0], attention.projection.bias
    projected = torch.einsum("oc,bcn->bon", weight, x.flatten(2)) + bias[None, :, None]
    q, k, v = projected[:, : c // 8], projected[:, c // 8 : c // 4], projected[:, c // 4 :]
    energy = torch.einsum("bci,bcj->bij", q, k)
    share = energy.exp() / energy.exp().sum(2, keepdim=True)
    return attention.gamma * torch.einsum("bij,bcj->bci", share, v).unflatten(2, x.shape[2:]) + x


def plain_map(head: nn.Module, x: Tensor, scale: int) -> Tensor:
    logits = F.conv3d(x, head.conv.weight, head.conv.bias)
    if scale > 1:
        logits = F.interpolate(logits, scale_factor=float(scale), mode="trilinear", align_corners=False)
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def plain_network(n: MPUNet, x: Tensor) -> dict[str, Tensor]:
    """Compute the published graph step by step, in eval mode, with gates, attention and residual stages."""
    skips = []
    for i in range(5):
        stage, down = n.encoder[i].body, n.down[i].body
        x = convolved(stage, 2, convolved(stage, 0, x)) + x
        skips.append(x)
        x = F.max_pool3d(x, 3, 1, 1)
        x = F.conv3d(x, down[0].weight, down[0].bias, stride=2 if i < 3 else 1, padding=0 if i < 3 else 1)
        x = F.elu(normed(x, down[1]))
    b = n.bottom
    x = F.prelu(normed(F.conv3d(x, b[0].weight, b[0].bias, padding=1), b[1]), b[2].weight)
    x = plain_attention(b[3], x)
    x = F.prelu(normed(F.conv3d(x, b[4].weight, b[4].bias, padding=1), b[5]), b[6].weight)
    maps = []
    for i, (stage, scale) in enumerate(zip([*n.decoder, n.finest], (8, 4, 2, 1))):
        x = plain_stage(stage, x, skips[3 - i], first=i == 0)
        maps.append(plain_map(n.head if scale == 1 else n.coarse_heads[i], x, scale))
    return {"seg": sum(maps) / 4, "aux_8": maps[0], "aux_4": maps[1], "aux_2": maps[2]}
