from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from common.methods.omnet import Cascade, OMNet, SingleTaskNet

from ..networks import Variant
from .formulas import (
    CONVOLUTIONS,
    PATCHES,
    TASKS,
    ThreeTasksTests,
    naive_backbone,
    naive_cga,
    naive_head,
    narrow,
    parameters,
)


class TestOMNet(ThreeTasksTests):
    network = OMNet


class TestStatisticsOfWindows(Variant, TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "statistics_window": (8, 8, 8)}


class TestPlainHeads(Variant, TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "attention": None}


class TestSqueezeAndExcitation(Variant, TestOMNet):
    # 64 channels make 8 hidden units; of few, all may be dead at the start, and nothing before them has a gradient
    options: ClassVar[dict[str, Any]] = {"channels": (64, 4), "attention": "se"}


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
    built = network()

    assert count(built, CONVOLUTIONS, "weight") == weights
    assert count(built, CONVOLUTIONS, "bias") == biases
    assert count(built, nn.BatchNorm3d, "weight") + count(built, nn.BatchNorm3d, "bias") == norms
    assert count(built, nn.Linear, "weight") + count(built, nn.Linear, "bias") == total - weights - biases - norms
    assert parameters(built) == total
    if published is not None:  # table I, in millions
        assert total == pytest.approx(1e6 * published, rel=1e-3)


def test_backbone_parameters_layer_by_layer() -> None:
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
    heads = {attention: OMNet(attention=attention).heads for attention in ("cga", None, "se")}

    assert [parameters(heads["cga"][task]) for task in TASKS] == [27_648 + 160 + 37 + 64, 345 + 15, 132 + 6]
    assert [parameters(heads[None][task]) for task in TASKS] == [27_909, 27_909, 27_810]
    assert [parameters(heads["se"][task][0]) for task in TASKS] == [292, 292, 292]


@pytest.mark.parametrize(("attention", "layers"), [("cga", 38), (None, 40), ("se", 40)])
def test_batch_norms(attention: str | None, layers: int) -> None:
    def norms(network: nn.Module) -> list[nn.BatchNorm3d]:
        return [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]

    assert {(m.momentum, m.eps) for m in norms(OMNet(attention=attention))} == {(1e-3, 1e-5)}
    assert len(norms(OMNet(attention=attention))) == layers
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


def test_paper_network_runs_on_the_papers_patch() -> None:
    network, shapes = OMNet().eval(), {}
    network.backbone.dropout.register_forward_hook(lambda *args: shapes.update(bottom=args[2].shape))
    image = torch.randn(1, 4, 32, 32, 16)

    with torch.no_grad():
        features, outputs = network.backbone(image), network(image)

    assert shapes["bottom"] == (1, 256, 4, 4, 2)
    assert features.shape == (1, 32, 32, 32, 16)
    assert features.min() == 0
    assert {task: tuple(output.shape[1:]) for task, output in outputs.items()} == {
        "coarse": (5, 32, 32, 16),
        "tumour": (5, 32, 32, 16),
        "enhancing": (2, 32, 32, 16),
    }


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_network_follows_the_figures(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 5, 6))
    image = torch.randn(2, 4, 12, 8, 4)

    with torch.no_grad():
        outputs = network(image)
        features = naive_backbone(image, network.backbone)
        coarse = naive_head(features, network.heads["coarse"])
        if attention in ("cga", "cga-"):
            spatial = attention == "cga"
            tumour = naive_cga(features, coarse, network.heads["tumour"], "tumour", spatial)
            enhancing = naive_cga(features, tumour, network.heads["enhancing"], "enhancing", spatial)
        else:
            tumour, enhancing = (naive_head(features, network.heads[task]) for task in TASKS[1:])

    expected = dict(zip(TASKS, (coarse, tumour, enhancing), strict=True))
    assert all(output.std() > 1 for output in outputs.values())
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_single_elements_at_the_bottom() -> None:
    network, bottom = narrow(dropout=0.5), []
    assert [m for m in network.modules() if isinstance(m, nn.Dropout)] == [network.backbone.dropout]
    network.backbone.dropout.train().register_forward_hook(lambda *args: bottom.extend([args[1][0], args[2]]))
    network(torch.randn(2, 4, 16, 16, 16))

    before, after = bottom
    assert before.shape == (2, 8, 4, 4, 4)
    dropped = (before > 0) & (after == 0)
    assert 0.4 < dropped.sum() / (before > 0).sum() < 0.6
    assert torch.equal(after[~dropped], 2 * before[~dropped])


# Tasks, patches and both forms.


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_each_task_trains_its_own_head(attention: str | None) -> None:
    for task in TASKS:
        network = narrow(attention=attention, channels=(8, 6)).train()
        output = network(torch.randn(2, 4, 8, 8, 8))[task]
        (output * torch.randn_like(output)).sum().backward()

        reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert {name.split(".")[1] for name in reached if name.startswith("heads.")} == {task}
        assert {name for name, _ in network.named_parameters() if name.startswith("backbone.")} <= reached


@pytest.mark.parametrize("attention", ["cga", "se", None])
@pytest.mark.parametrize("training", [True, False])
def test_heads_return_their_patches(attention: str | None, training: bool) -> None:
    """Check that plain heads run on their patches only, and that heads with CGA run on all, as guides."""
    network = narrow(attention=attention, channels=(8, 6), dropout=0.0).train(training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(4, 4, 8, 8, 8)
    with torch.no_grad():
        outputs = network(image, PATCHES)
        after = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(state)

        if attention == "cga":
            expected = {task: logits[i] for (task, logits), i in zip(network(image).items(), PATCHES, strict=True)}
        else:
            features = network.backbone(image)
            expected = {task: network.heads[task](features[i]) for task, i in zip(TASKS[:2], PATCHES[:2], strict=True)}
            expected["enhancing"] = torch.zeros(0, 2, 8, 8, 8)  # the head did not run
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(after, network.state_dict())


@pytest.mark.parametrize("attention", ["cga", "se", None])
def test_a_head_without_patches_gets_no_gradient(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 6)).train()
    outputs = network(torch.randn(4, 4, 8, 8, 8), PATCHES)
    sum(output.sum() for output in outputs.values()).backward()

    assert all(p.grad is None for p in network.heads["enhancing"].parameters())
    assert all(p.grad.isfinite().all() for p in network.heads["tumour"].parameters())


# Numbers and errors.


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_other_precisions(precision: torch.dtype) -> None:
    network = narrow(statistics_window=(8, 8, 4)).to(precision)

    outputs = network(torch.randn(1, 4, 8, 8, 8, dtype=precision))
    assert {output.dtype for output in outputs.values()} == {precision}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "CGA"}, r"attention='CGA': expected one of 'cga', 'cga-', 'se', None"),
        ({"num_classes": (5, 2)}, r"num_classes=\(5, 2\): expected three numbers, the first two at least 4"),
        ({"num_classes": (5, 3, 2)}, r"num_classes=\(5, 3, 2\): expected three"),
        ({"statistics_window": (32, 32)}, r"statistics_window=\(32, 32\): expected None or three sizes"),
        ({"statistics_window": (32, 32, 0)}, r"statistics_window=\(32, 32, 0\): expected None or three sizes"),
    ],
)
def test_unknown_option_raises(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OMNet(**options)


@pytest.mark.parametrize("kind", [OMNet, Cascade])
@pytest.mark.parametrize(("dense", "number"), [(True, 3), (False, 2)])
def test_patches_that_do_not_fit_raise(kind: type, dense: bool, number: int) -> None:
    with pytest.raises(ValueError, match=r"patches: expected three tensors"):
        kind(channels=(4, 6, 8), dense=dense)(torch.zeros(2, 4, 8, 8, 8), number * [torch.tensor([0])])
