"""Test the numbers of parameters, the normalisations and the initialisation of OM-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.methods.omnet import OMNet, SingleTaskNet

from ..networks import parameters
from .formulas import CONVOLUTIONS, TASKS, narrow


def count(module: nn.Module, kind: type | tuple[type, ...], name: str) -> int:
    return sum(getattr(m, name).numel() for m in module.modules() if isinstance(m, kind))


@pytest.mark.parametrize(
    ("network", "weights", "biases", "norms", "total", "published"),
    [
        pytest.param(SingleTaskNet, 13_812_256, 3_749, 7_488, 13_823_493, 13.813, id="MC1"),
        pytest.param(lambda: SingleTaskNet(num_classes=2), 13_812_160, 3_746, 7_488, 13_823_394, None, id="2 classes"),
        pytest.param(lambda: OMNet(attention=None), 13_867_776, 3_820, 7_616, 13_879_212, 13.869, id="OM-Net"),
        pytest.param(lambda: OMNet(attention="se"), 13_867_776, 3_820, 7_616, 13_880_088, 13.870, id="OM-Net + SE"),
        pytest.param(OMNet, 13_812_733, 3_770, 7_488, 13_823_991, 13.814, id="OM-Net + CGA"),
        pytest.param(lambda: OMNet(attention="cga-"), 13_812_733, 3_770, 7_488, 13_823_991, 13.814, id="CGA-"),
    ],
)
def test_parameters(network: type, weights: int, biases: int, norms: int, total: int, published: float | None) -> None:
    with torch.device("meta"):
        built = network()

    assert count(built, CONVOLUTIONS, "weight") == weights
    assert count(built, CONVOLUTIONS, "bias") == biases
    assert count(built, nn.BatchNorm3d, "weight") + count(built, nn.BatchNorm3d, "bias") == norms
    assert count(built, nn.Linear, "weight") + count(built, nn.Linear, "bias") == total - weights - biases - norms
    assert parameters(built) == total
    if published is not None:  # table I, in millions
        assert total == pytest.approx(1e6 * published, rel=1e-3)


def test_backbone_parameters_layer_by_layer() -> None:
    with torch.device("meta"):
        backbone = OMNet().backbone
    weights = [m.weight.numel() for m in backbone.modules() if isinstance(m, CONVOLUTIONS)]

    assert weights == [
        *[3_456, 27_648, 27_648, 27_648, 27_648],
        *[55_296, 110_592, 110_592, 110_592, 110_592],
        *[221_184, 442_368, 442_368, 442_368, 442_368],
        *[884_736, 1_769_472, 1_769_472, 1_769_472, 1_769_472],
        *[262_144, 442_368, 442_368, 442_368, 442_368, 442_368],
        *[65_536, 110_592, 110_592, 110_592, 110_592, 110_592],
        *[16_384, 27_648, 27_648, 27_648, 27_648],
    ]
    assert len(weights) == 37
    assert sum(weights) == 13_784_448
    assert count(backbone, CONVOLUTIONS, "bias") == 3_712
    assert count(backbone, nn.BatchNorm3d, "weight") + count(backbone, nn.BatchNorm3d, "bias") == 7_424


def test_head_parameters() -> None:
    with torch.device("meta"):
        heads = {attention: OMNet(attention=attention).heads for attention in ("cga", None, "se")}

    assert [parameters(heads["cga"][task]) for task in TASKS] == [27_648 + 160 + 37 + 64, 345 + 15, 132 + 6]
    assert [parameters(heads[None][task]) for task in TASKS] == [27_909, 27_909, 27_810]
    assert [parameters(heads["se"][task][0]) for task in TASKS] == [292, 292, 292]


@pytest.mark.parametrize(("attention", "layers"), [("cga", 38), (None, 40), ("se", 40)])
def test_batch_norms(attention: str | None, layers: int) -> None:
    def norms(network: nn.Module) -> list[nn.BatchNorm3d]:
        return [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]

    with torch.device("meta"):
        found = norms(OMNet(attention=attention))
    assert {(m.momentum, m.eps) for m in found} == {(1e-3, 1e-5)}
    assert len(found) == layers
    assert {m.momentum for m in norms(narrow(attention=attention, bn_momentum=0.1, channels=(8, 6)))} == {0.1}


@pytest.mark.parametrize("network", [OMNet, SingleTaskNet])
def test_initialisation(network: type) -> None:
    first, *others = [m for m in network().modules() if isinstance(m, CONVOLUTIONS)]

    assert not first.bias.any()
    assert all((m.bias == 0.1).all() for m in others)
    for m in (first, *others):
        if m.weight.numel() > 3_000:
            fan_in = m.weight[0].numel()
            assert m.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
            assert m.weight.mean().item() == pytest.approx(0, abs=0.05 * m.weight.std().item())
