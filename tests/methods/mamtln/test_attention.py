from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mamtln.attention import ASAModule, VABlock, VALayer, WeightedFusion
from common.methods.mamtln.blocks import Merge

from .formulas import GROUPS, W, cgp, down, equal, fused, scales, trained, up


@pytest.mark.parametrize("maps", [scales()[::-1], [torch.cat(scales()[2:], 1), scales()[1]], scales()[2:]])
def test_merge_equals_convolution_of_the_concatenation(maps: list[Tensor]) -> None:
    layer = trained(Merge(sum(m.shape[1] for m in maps), W, GROUPS))
    equal(layer(maps), cgp(layer, torch.cat([up(m, maps[-1]) for m in maps], 1)))


@pytest.mark.parametrize("branches", [1, 2, 3, 4])
def test_va_block_against_its_equations(branches: int) -> None:
    block = trained(VABlock(W, branches))
    x = torch.randn(2, W, 9, 8, 6, dtype=torch.float64)

    masks = []
    for n in range(branches):
        *before, last = block.branches[n]
        y = x
        assert len(before) == max(1, n)
        for conv in before:
            y = F.conv3d(y, conv.weight, conv.bias, padding=1 if n else 0)
        dilation = ((1, 1, 1), (3, 3, 3), (5, 5, 5), (7, 7, 5))[n]
        masks.append(torch.sigmoid(F.conv3d(y, last.weight, last.bias, padding=dilation, dilation=dilation)))
        assert (masks[-1] > 0).all() and (masks[-1] < 1).all()
    y = F.conv3d(torch.cat([mask * x for mask in masks], 1), block.fuse.weight, block.fuse.bias)
    equal(block(x), F.prelu(y + x, block.act.weight))

    nn.init.zeros_(block.fuse.weight)
    nn.init.zeros_(block.fuse.bias)
    equal(block(x), F.prelu(x, block.act.weight))


@pytest.mark.parametrize("n", [2, 3])
def test_fusion_weights_are_a_normalised_mean(n: int) -> None:
    layer = WeightedFusion(n).double()
    assert layer.weights().tolist() == pytest.approx([1 / (n + 1e-4)] * n)
    assert layer.weights().sum().item() == pytest.approx({2: 0.99995, 3: 0.99997}[n], abs=5e-6)

    for _ in range(10):
        nn.init.normal_(layer.weight)
        with torch.no_grad():
            layer.weight[0] = 0.5
            weights = layer.weights()
        assert (weights >= 0).all() and 1 - 1e-3 < weights.sum() < 1
        assert (weights[layer.weight < 0] == 0).all()

    maps = [torch.randn(2, 3, 4, 3, 2, dtype=torch.float64) for _ in range(n)]
    w = layer.weight.relu()
    mean = sum(w[i] * maps[i] for i in range(n)) / (w.sum() + 1e-4)
    equal(layer(maps), mean * torch.sigmoid(mean))


def test_va_layer_against_its_equations() -> None:
    layer, p = trained(VALayer(W, GROUPS)), scales()
    f, td, bu = layer.blocks, layer.top_down, layer.bottom_up

    i4 = f[3](p[3])
    i3 = f[2](td[2]([p[2], i4]))
    i2 = f[1](td[1]([p[1], up(i3, p[1])]))
    i1 = f[0](td[0]([p[0], up(i2, p[0])]))
    v1 = bu[0]([p[0], i1])
    v2 = bu[1]([p[1], i2, down(layer.down[0], v1)])
    v3 = bu[2]([p[2], i3, down(layer.down[1], v2)])
    v4 = bu[3]([p[3], i4, v3])

    for found, expected in zip(layer(p), (v1, v2, v3, v4)):
        equal(found, expected)
    assert [len(block.branches) for block in f] == [4, 3, 2, 2]


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize(("scale", "steps"), [(0, 0), (1, 1), (2, 2)])
def test_asa_module_against_its_equations(scale: int, steps: int, refine: bool) -> None:
    module, maps = trained(ASAModule(W, GROUPS, steps, refine)), scales()
    v, multi_scale = maps[scale], scales()[0]

    m = multi_scale
    for _ in range(steps):
        m = down(module.down, m)
    z = torch.cat([cgp(r, y, groups=GROUPS // 2) for r, y in zip(module.reduce, (v, m))], 1)
    z = F.conv3d(z, module.weigh.weight, module.weigh.bias)
    w_n, w_m = (z[:, i : i + 1].exp() / z.exp().sum(1, keepdim=True) for i in (0, 1))

    def sigma(x: Tensor) -> Tensor:
        first, second, last = module.mask
        return torch.sigmoid(F.conv3d(cgp(second, cgp(first, x)), last.weight, last.bias, padding=1))

    expected = w_n * v * sigma(v) + w_m * m * sigma(m)
    if refine:
        expected = fused(module.refine, [v, expected * m])
    equal(module(v, multi_scale), expected)

    equal(module.matched(multi_scale), m)
    equal(module.weights(v, m).sum(1), torch.ones(v.shape[0], *v.shape[2:], dtype=torch.float64))
    masks = module.masks(v)
    assert masks.shape == v.shape and (masks > 0).all() and (masks < 1).all()


def test_both_masks_are_made_in_one_call() -> None:
    module, maps = trained(ASAModule(W, GROUPS, 0, False)), scales()
    batches: list[int] = []
    module.mask.register_forward_hook(lambda *args: batches.append(len(args[2])))
    module(maps[0], maps[0])
    assert batches == [4]
