from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mpunet import MPUNet
from common.methods.mpunet.attention import PositionAttention
from common.methods.mpunet.blocks import maximum_of_neighbours
from common.methods.mpunet.network import ResidualStage

from ..networks import TwoFormsTests, Variant
from .formulas import (
    NARROW,
    convolved,
    count,
    lively,
    normed,
    plain_attention,
    plain_map,
    plain_stage,
)

PUBLISHED, UNUSED = 22_557_009, 1_049_754


class TestMPUNet(TwoFormsTests):
    network = MPUNet
    options: ClassVar[dict[str, Any]] = NARROW
    image = (2, 1, 16, 24, 8)
    out_channels = 2
    heads: ClassVar[dict[str, int]] = {"seg": 2, "aux_8": 2, "aux_4": 2, "aux_2": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 4, "out_channels": 3}
    other_out_channels = 3
    without_gradient = r"(down\.\d\.body\.0|bottom\.[04]|gate\.\w+\.0)\.bias"  # batch normalisation takes these away

    def prepare(self, network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, PositionAttention):
                nn.init.constant_(module.gamma, 0.7)  # at the start, 0, the attention gets no gradient

    def inference_of(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["seg"]


class TestExplicitAttention(Variant, TestMPUNet):
    options: ClassVar[dict[str, Any]] = {**NARROW, "attention": "explicit"}


class TestFinestScale(Variant, TestMPUNet):
    options: ClassVar[dict[str, Any]] = {**NARROW, "fusion": "finest"}
    heads: ClassVar[dict[str, int]] = {"seg": 2}


class TestTwoBranchesWithoutAttentionAndGates(Variant, TestMPUNet):
    options: ClassVar[dict[str, Any]] = {**NARROW, "block": "two_branch", "attention": "off", "gates": False}


def test_parameters_of_the_published_network() -> None:
    unused = [nn.ConvTranspose3d(512, 256, 2), nn.PReLU(256), nn.Conv3d(2, 2, 1)]  # up-sampling, head
    unused += [layer for c_in in (8, 2, 2) for layer in (nn.Conv3d(c_in, 2, 3), nn.PReLU(2))]  # decoder block
    network = MPUNet()
    assert sum(map(count, unused)) == UNUSED
    assert count(network) == 21_507_255 == PUBLISHED - UNUSED
    assert sum(b.numel() for b in network.buffers()) == 3_995
    # The paper's checkpoint of 250.34 MB: weights of all, Adam's two moments of those that are used.
    assert (4 * PUBLISHED + 8 * count(network)) / 2**20 == pytest.approx(250.34, abs=0.25)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"out_channels": 3}, 22_557_496 - UNUSED - 3),  # the unused head has 3 more too
        ({"attention": "off"}, 21_507_255 - 82_241),
        ({"attention": "explicit"}, 21_507_255),
        ({"gates": False}, 21_507_255 - 66_435 - 16_835 - 4_323 - 1_139),
        ({"fusion": "finest"}, 21_507_255 - 514 - 258 - 130),
    ],
)
def test_parameters_of_the_options(options: dict, parameters: int) -> None:
    assert count(MPUNet(**options)) == parameters


def test_parameters_of_the_blocks() -> None:
    network = MPUNet()
    assert list(map(count, network.encoder)) == [7_408, 55_424, 221_440, 885_248, 3_539_968]
    assert list(map(count, network.down)) == [4_192, 16_576, 65_920, 885_504, 3_540_480]
    assert count(network.bottom) == 5_392_195 and count(network.bottom[3]) == 82_241
    assert list(map(count, network.coarse_heads)) == [514, 258, 130] and count(network.head) == 66
    stages = [*network.decoder, network.finest]
    assert [count(stage.up) for stage in stages] == [0, 262_400, 65_664, 16_448]
    assert [count(stage.refine) for stage in stages] == [4_425_216, 1_549_056, 387_456, 96_960]
    assert [count(stage.gate) for stage in stages] == [66_435, 16_835, 4_323, 1_139]


def test_two_branches_take_half_the_width_each() -> None:
    refine = MPUNet(block="two_branch", **NARROW).finest.refine
    # 4 + 4 channels in; branches of 2 channels, each convolution with a bias and as many slopes; 1x1x1 from 4 to 4
    branch = {k: (8 * 2 * k**3 + 4) + (2 * 2 * k**3 + 4) for k in (3, 5)}
    assert count(refine) == branch[3] + branch[5] + 4 * 4 + 4


def test_sizes_of_the_published_network() -> None:
    network = MPUNet()
    seen: list[tuple[int, ...]] = []
    network.bottom.register_forward_hook(lambda _, x, y: seen.extend((tuple(x[0].shape), tuple(y.shape))))
    outputs = network(torch.randn(1, 1, 32, 32, 16))
    assert seen == [(1, 512, 4, 4, 2), (1, 256, 4, 4, 2)]
    assert list(outputs) == ["seg", "aux_8", "aux_4", "aux_2"]
    assert {tuple(t.shape) for t in outputs.values()} == {(1, 2, 32, 32, 16)}


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


def test_the_graph_against_plain_formulas() -> None:
    network, x = lively(MPUNet(**NARROW)), torch.randn(2, 1, 16, 24, 8)
    with torch.no_grad():
        outputs, expected = network(x), plain_network(network, x)
    assert list(outputs) == list(expected)
    for name, values in outputs.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-5)


def test_seg_is_the_mean_of_the_probability_maps() -> None:
    network = lively(MPUNet(out_channels=3, **NARROW))
    finest: list[Tensor] = []
    network.head.register_forward_hook(lambda *call: finest.append(call[2]))
    outputs = network(torch.randn(2, 1, 16, 16, 8))
    for values in outputs.values():
        assert values.min() >= 0 and values.max() <= 1
        torch.testing.assert_close(values.sum(1), torch.ones(2, 16, 16, 8), rtol=0, atol=1e-6)
    maps = [outputs["aux_8"], outputs["aux_4"], outputs["aux_2"], finest[0]]
    torch.testing.assert_close(outputs["seg"], torch.stack(maps).mean(0), rtol=0, atol=1e-6)


def test_finest_scale_alone_equals_the_finest_map() -> None:
    network, single = lively(MPUNet(**NARROW)), MPUNet(fusion="finest", **NARROW).eval()
    missing = single.load_state_dict(network.state_dict(), strict=False)
    assert not missing.missing_keys and {k.split(".")[0] for k in missing.unexpected_keys} == {"coarse_heads"}
    finest: list[Tensor] = []
    network.head.register_forward_hook(lambda *call: finest.append(call[2]))
    x = torch.randn(1, 1, 16, 16, 8)
    network(x)
    outputs = single(x)
    assert list(outputs) == ["seg"] and torch.equal(outputs["seg"], finest[0])


@pytest.mark.parametrize("block", ["residual", "two_branch"])
@pytest.mark.parametrize("size", [64, 88])  # strips of 32: with neighbours on one side, on both, and a thinner one
def test_strips_give_the_same_values(block: str, size: int) -> None:
    network, x = lively(MPUNet(block=block, **NARROW)), torch.randn(1, 1, size, 8, 8)
    calls: list[Tensor] = []
    network.head.register_forward_hook(lambda *call: calls.append(call[2]))
    whole = network(x)  # with gradients
    assert len(calls) == 1
    with torch.no_grad():
        in_strips = network(x)
    assert len(calls) - 1 == math.ceil(size / 32)
    for name, values in whole.items():
        torch.testing.assert_close(in_strips[name], values, rtol=1e-5, atol=1e-6)


def test_batch_statistics_cover_the_whole_image() -> None:
    network, x = MPUNet(dropout=0.0, **NARROW).train(), torch.randn(1, 1, 64, 8, 8)
    with torch.no_grad():
        seg = network(x)["seg"]
    assert torch.equal(seg, network(x)["seg"])


def test_maximum_of_neighbours() -> None:
    x = torch.randn(2, 3, 5, 6, 1) - 5  # zeros at the border would show
    expected = F.max_pool3d(x, kernel_size=3, stride=1, padding=1)
    assert torch.equal(maximum_of_neighbours(x), expected)
    with torch.no_grad():
        assert torch.equal(maximum_of_neighbours(x), expected)


@pytest.mark.parametrize(("alpha", "alphas"), [(1.0, [1] * 5), (1, [1] * 5), ("channels", [4, 8, 8, 16, 32])])
def test_alpha_of_the_elus(alpha: float | str, alphas: list[int]) -> None:
    network = MPUNet(elu_alpha=alpha, **NARROW)
    assert [m.alpha for m in network.modules() if isinstance(m, nn.ELU)] == alphas


def test_dropout_and_momentum() -> None:
    network = MPUNet(dropout=0.3, bn_momentum=0.02, **NARROW)
    dropouts = {name: m.p for name, m in network.named_modules() if isinstance(m, nn.Dropout)}
    assert {name for name, p in dropouts.items() if p != 0.3} == {"encoder.0.dropout", "finest.dropout"}
    assert dropouts["encoder.0.dropout"] == dropouts["finest.dropout"] == 0 and len(dropouts) == 9
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == 5 + 2 + 4 * 3 and {m.momentum for m in norms} == {0.02}


def test_initialisation() -> None:
    network = MPUNet()
    for weight, fan_in in ((network.bottom[0].weight, 512 * 27), (network.decoder[1].up[0].weight, 128 * 8)):
        assert weight.detach().std() == pytest.approx(math.sqrt(2 / (1 + 0.25**2) / fan_in), rel=0.01)
    assert not any(p.any() for m in network.modules() if isinstance(m, nn.Conv3d) for p in [m.bias])
    assert network.bottom[3].gamma == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "sparse"}, "attention='sparse': expected one of 'linear', 'explicit', 'off'"),
        ({"fusion": "max"}, "fusion='max'"),
        ({"block": "plain"}, "block='plain'"),
        ({"elu_alpha": "width"}, "elu_alpha='width': expected one of 'channels'"),
        ({"channels": (4, 8, 16)}, "five widths"),
        ({"channels": (4, 4, 8, 8, 12)}, "the last a multiple of 8"),
        ({"in_channels": 0}, "in_channels=0: expected at least 1"),
    ],
)
def test_unknown_option_raises(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPUNet(**options)


def test_several_modalities_are_projected_to_the_first_level() -> None:
    stage = ResidualStage(3, 8, 0.0)
    nn.init.constant_(stage.project.weight, 1 / 3)
    x = torch.randn(2, 3, 4, 4, 4)
    mean = x.mean(1, keepdim=True)
    torch.testing.assert_close(stage(x), stage.body(x) + mean)  # as one modality, which is added to every channel
    network = MPUNet(3, channels=(8, 8, 8, 8, 8))
    torch.testing.assert_close(network.encoder[0].project.weight, torch.full((8, 3, 1, 1, 1), 1 / 3))
    assert not any(
        "encoder.0.project" in name for c in (1, 8) for name in MPUNet(c, channels=(8, 8, 8, 8, 8)).state_dict()
    )
