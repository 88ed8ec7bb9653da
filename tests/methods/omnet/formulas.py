"""Compute the equations of OM-Net as the paper writes them, for comparison with the network."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from common.methods.omnet import OMNet
from common.methods.omnet.attention import CrossTaskGuidedAttention
from common.methods.omnet.network import Backbone, ResidualBlock

from ..naive import naive_convolution, naive_norm
from ..networks import TwoFormsTests, set_trained

CONVOLUTIONS = (nn.Conv3d, nn.ConvTranspose3d)
TASKS = ("coarse", "tumour", "enhancing")
POSITIVE = {"tumour": (1, 2, 3), "enhancing": (1, 3)}


def narrow(**options: object) -> OMNet:
    """Build a narrow network in eval mode, with weights and statistics as after training."""
    return trained(OMNet(**{"channels": (4, 6, 8), **options})).eval()


def trained(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.BatchNorm3d):
            set_trained(m)
        elif isinstance(m, CrossTaskGuidedAttention):
            nn.init.normal_(m.scores.weight, std=4)  # as large as the 1 / channels of m is small
            nn.init.normal_(m.scores.bias)
    return network


def naive_double(x: Tensor, up: nn.Module) -> Tensor:
    larger = torch.zeros(x.shape[0], up.weight.shape[1], *(2 * size for size in x.shape[2:]))
    for i, j, k in itertools.product((0, 1), repeat=3):
        larger[:, :, i::2, j::2, k::2] = torch.einsum("co,bcxyz->boxyz", up.weight[:, :, i, j, k], x)
    return larger + up.bias.view(1, -1, 1, 1, 1)


def naive_unit(x: Tensor, unit: nn.Module) -> Tensor:
    return naive_norm(naive_convolution(x, unit.conv), unit.adn.N).clamp(min=0)


def naive_residual(x: Tensor, block: ResidualBlock) -> Tensor:
    first, second, third = block.body
    y = naive_unit(naive_unit(x, first), second)
    return (x + naive_norm(naive_convolution(y, third.conv), third.adn.N)).clamp(min=0)


def naive_backbone(x: Tensor, backbone: Backbone) -> Tensor:
    skips = []
    for i, (first, residual, last) in enumerate(backbone.encoder):
        if i > 0:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).amax((5, 6, 7))
        x = naive_unit(naive_residual(naive_unit(x, first), residual), last)
        skips.append(x)
    skips.pop()
    for block in backbone.decoder:
        x = naive_norm(naive_double(x, block.up.conv), block.up.adn.N).clamp(min=0) + skips.pop()
        first, residual, *last = block.refine
        x = naive_residual(naive_unit(x, first), residual)
        for unit in last:
            x = naive_unit(x, unit)
    return x


def naive_head(x: Tensor, head: nn.Sequential) -> Tensor:
    *squeeze, unit, conv = head
    for block in squeeze:
        hidden = (x.mean((2, 3, 4)) @ block.fc[0].weight.T + block.fc[0].bias).clamp(min=0)
        x = x / (1 + torch.exp(-hidden @ block.fc[2].weight.T - block.fc[2].bias))[:, :, None, None, None]
    return naive_convolution(naive_unit(x, unit), conv)


def naive_cga(features: Tensor, guide: Tensor, module: CrossTaskGuidedAttention, task: str, spatial: bool) -> Tensor:
    e = torch.exp(guide.detach())
    p = e / e.sum(1, keepdim=True)
    p_t = sum(p[:, c] for c in range(5) if c in POSITIVE[task])[:, None]  # (3)
    p_n = sum(p[:, c] for c in range(5) if c not in POSITIVE[task])[:, None]  # (4)
    num_classes = module.merge.weight.shape[0]
    merged = 0
    for p_k, rows in ((p_t, slice(None, num_classes)), (p_n, slice(num_classes, None))):
        v = (features * p_k).sum((2, 3, 4), keepdim=True)
        m = v / v.sum(1, keepdim=True)  # (5), (6)
        u = m * features  # (7), (8)
        s = torch.einsum("oc,bcxyz->boxyz", module.scores.weight[rows, :, 0, 0, 0], u)
        s = s + module.scores.bias[rows].view(1, -1, 1, 1, 1)
        merged = merged + (p_k * s if spatial else s)  # (9)
    return naive_convolution(merged, module.merge)


PATCHES = [torch.tensor([0, 1]), torch.tensor([3, 1]), torch.tensor([], dtype=torch.long)]


class ThreeTasksTests(TwoFormsTests):
    """Test a network of the three tasks."""

    options: ClassVar[dict[str, Any]] = {"channels": (4, 8)}
    image = (2, 4, 16, 12, 8)
    out_channels = 5 + 5 + 2
    heads: ClassVar[dict[str, int]] = {"coarse": 5, "tumour": 5, "enhancing": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": (6, 4, 3)}
    other_out_channels = 6 + 4 + 3

    def inference_of(self, outputs: dict[str, Tensor]) -> Tensor:
        return torch.cat([logits.softmax(1) for logits in outputs.values()], 1)
