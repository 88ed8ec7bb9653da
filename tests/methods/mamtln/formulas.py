"""Compute the equations of MA-MTLN as the paper writes them, for comparison with the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN
from common.methods.mamtln.attention import TaskAttention, WeightedFusion
from common.methods.mamtln.backbone import NormalisedConvolution
from common.methods.mamtln.blocks import Fusion

W, GROUPS = 16, 8
NARROW = {"width": W, "planes": (8, 16, 16, 16), "blocks": (2, 1, 1, 1), "cardinality": 4, "norm_groups": GROUPS}
SIZES = ((9, 8, 5), (5, 4, 5), (3, 2, 5), (3, 2, 5))  # of the four scales


def trained(module: nn.Module) -> nn.Module:
    """Put a module in float64 and eval mode, with weights and statistics as after training."""
    for m in module.modules():
        if isinstance(m, (nn.BatchNorm3d, nn.GroupNorm)):
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.3)
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2)
        if isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, -0.2, 0.4)
        if isinstance(m, WeightedFusion):
            nn.init.uniform_(m.weight, 0.2, 2)
    return module.double().eval()


def narrow(**options: object) -> MAMTLN:
    return trained(MAMTLN(**NARROW, **options))


def scales(width: int = W) -> list[Tensor]:
    return [torch.randn(2, width, *size, dtype=torch.float64) for size in SIZES]


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


def cgp(layer: nn.Module, x: Tensor, stride: tuple[int, ...] = (1, 1, 1), groups: int = GROUPS) -> Tensor:
    """Apply convolution, group normalisation and PReLU with the weights of a layer."""
    padding = layer.conv.weight.shape[-1] // 2
    y = F.conv3d(x, layer.conv.weight, layer.conv.bias, stride, padding)
    return F.prelu(F.group_norm(y, groups, layer.norm.weight, layer.norm.bias), layer.act.weight)


def down(layer: nn.Module, x: Tensor) -> Tensor:
    return cgp(layer, x, (2, 2, 1), GROUPS // 2)


def fused(layer: Fusion, maps: list[Tensor]) -> Tensor:
    y = cgp(layer.merge, torch.cat([up(m, maps[-1]) for m in maps], 1))
    return cgp(layer.refine[1], cgp(layer.refine[0], y))


def conv_bn(layer: NormalisedConvolution, x: Tensor, *args: object) -> Tensor:
    y, norm = F.conv3d(x, layer.conv.weight, None, *args), layer.norm
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def attended(layer: TaskAttention, maps: list[Tensor]) -> Tensor:
    y = cgp(layer.merge, torch.cat([up(m, maps[-1]) for m in maps], 1))
    if layer.mask is not None:
        mask = torch.sigmoid(F.conv3d(y, layer.mask.weight, layer.mask.bias))
        assert (mask > 0).all() and (mask < 1).all()
        y = mask * maps[-1]
    return cgp(layer.refine, y)


def plain_network(network: MAMTLN, image: Tensor) -> dict[str, Tensor]:
    """Compute the training form with heads that follow the up-sampling, and fusions of maps at the finest size."""
    v = [cgp(project, f) for project, f in zip(network.project, network.backbone(image))]
    v = network.va(v) if network.va is not None else v
    multi_scale = fused(network.fusion_va, v[::-1])
    a = [module(x, multi_scale) for module, x in zip(network.asa, v)] if network.asa is not None else v
    s2 = attended(network.seg.attention2, [a[3], a[2], a[1]])
    s1 = attended(network.seg.attention1, [s2, a[0]])

    def head(layer: nn.Conv3d, x: Tensor) -> Tensor:
        return F.conv3d(up(x, image), layer.weight, layer.bias)

    return {
        "aux_va": head(network.aux_va, multi_scale),
        "aux_asa": head(network.aux_asa, fused(network.fusion_asa, a[::-1])),
        "seg": head(network.seg.head, s1),
        "class": network.cls(a),
    }
