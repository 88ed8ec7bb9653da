from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from common.methods.mpunet import MPUNet
from common.methods.mpunet.attention import PositionAttention

from ..networks import TwoFormsTests, Variant
from .formulas import NARROW, lively, plain_network


class TestMPUNet(TwoFormsTests):
    network = MPUNet
    options: ClassVar[dict[str, Any]] = NARROW
    image = (2, 1, 16, 24, 8)
    out_channels = 2
    heads: ClassVar[dict[str, int]] = {"seg": 2, "aux_8": 2, "aux_4": 2, "aux_2": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 4, "out_channels": 3}
    other_out_channels = 3
    parameter_counts = (
        ({}, 21_507_255),
        ({"out_channels": 3}, 22_557_496 - 1_049_754 - 3),  # without the unused part, which has 3 more too
        ({"attention": "off"}, 21_507_255 - 82_241),
        ({"attention": "explicit"}, 21_507_255),
        ({"gates": False}, 21_507_255 - 66_435 - 16_835 - 4_323 - 1_139),
        ({"fusion": "finest"}, 21_507_255 - 514 - 258 - 130),
    )
    wrong_options = (
        ({"attention": "sparse"}, "attention='sparse': expected one of 'linear', 'explicit', 'off'"),
        ({"fusion": "max"}, "fusion='max'"),
        ({"block": "plain"}, "block='plain'"),
        ({"elu_alpha": "width"}, "elu_alpha='width': expected one of 'channels'"),
        ({"channels": (4, 8, 16)}, "five widths"),
        ({"channels": (4, 4, 8, 8, 12)}, "the last a multiple of 8"),
        ({"in_channels": 0}, "in_channels=0: expected at least 1"),
    )
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
