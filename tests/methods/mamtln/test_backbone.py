from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN
from common.methods.mamtln.backbone import Bottleneck, NormalisedConvolution
from common.methods.mamtln.blocks import pointwise

from .formulas import NARROW, conv_bn, equal, trained


@pytest.mark.parametrize("size", [(64, 64, 8), (50, 70, 13)])
def test_sizes_of_the_features(size: tuple[int, int, int]) -> None:
    network = MAMTLN(**NARROW)
    halves = [tuple(-(-n // (2**k if axis < 2 else 2)) for axis, n in enumerate(size)) for k in (2, 3, 4, 4)]
    image = torch.randn(1, 1, *size)

    with torch.no_grad():
        features = network.backbone(image)
        outputs = network(image)

    assert [f.shape[1:] for f in features] == [(c, *half) for c, half in zip((16, 32, 32, 32), halves)]
    assert {name: o.shape for name, o in outputs.items()} == {
        "aux_va": (1, 2, *size),
        "aux_asa": (1, 2, *size),
        "seg": (1, 2, *size),
        "class": (1, 2),
    }


def test_pool_stride_keeps_the_slices() -> None:
    with torch.no_grad():
        features = MAMTLN(**NARROW, pool_stride=(2, 2, 1)).backbone(torch.randn(1, 1, 32, 32, 7))
    assert [f.shape[2:] for f in features] == [(8, 8, 7), (4, 4, 7), (2, 2, 7), (2, 2, 7)]


@pytest.mark.parametrize(("c", "stride", "dilation"), [(32, (1, 1, 1), 1), (32, (1, 1, 1), 2), (12, (2, 2, 1), 1)])
def test_bottleneck_against_its_formula(c: int, stride: tuple[int, int, int], dilation: int) -> None:
    block = trained(Bottleneck(c, 16, stride, dilation, 4, ("batch", {})))
    x = torch.randn(2, c, 5, 6, 4, dtype=torch.float64)

    y = F.prelu(conv_bn(block.conv1, x), block.act.weight)
    y = F.prelu(conv_bn(block.conv2, y, stride, dilation, dilation, 4), block.act.weight)
    y = conv_bn(block.conv3, y)
    hidden = F.leaky_relu(block.excite.fc[0](y.mean((2, 3, 4))), 0.01)
    scale = torch.sigmoid(block.excite.fc[2](hidden))
    assert hidden.shape == (2, 2) and (scale > 0).all() and (scale < 1).all()
    shortcut = x if c == 32 else conv_bn(block.shortcut, x, stride)
    expected = F.prelu(y * scale[:, :, None, None, None] + shortcut, block.act.weight)

    assert len([m for m in block.modules() if isinstance(m, nn.PReLU)]) == 1
    equal(block(x), expected)
    with torch.no_grad():
        equal(block(x), expected)  # folded


def test_shortcut_is_projected_if_size_or_width_change() -> None:
    layers = MAMTLN().backbone.layers
    projected = [[not isinstance(block.shortcut, nn.Identity) for block in layer] for layer in layers]
    assert projected == [[True] + [False] * 2, [True] + [False] * 3, [True] + [False] * 5, [False] * 3]
    assert [[block.conv2.conv.dilation[0] for block in layer][-1] for layer in layers] == [1, 1, 1, 2]
    assert {block.conv2.conv.groups for layer in layers for block in layer} == {32}


def test_normalisation_is_folded_in_inference_only() -> None:
    layer = trained(NormalisedConvolution(3, 8, ("batch", {}), 3))
    calls: list[Tensor] = []
    layer.norm.register_forward_hook(lambda *args: calls.append(args[2]))
    x = torch.randn(2, 3, 5, 4, 3, dtype=torch.float64)

    with torch.no_grad():
        folded = layer(x)
    assert not calls
    equal(folded, layer(x))
    assert len(calls) == 1
    with torch.no_grad():
        layer.train()(x)
    assert len(calls) == 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_pointwise_equals_a_1x1x1_convolution(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 6, 5, 4, 3, dtype=torch.float64).contiguous(memory_format=memory_format)
    weight, bias = torch.randn(4, 6, 1, 1, 1, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    found = pointwise(x, weight, bias)

    equal(found, torch.einsum("oi,bixyz->boxyz", weight[..., 0, 0, 0], x) + bias.view(1, -1, 1, 1, 1))
    assert found.is_contiguous(memory_format=memory_format)
