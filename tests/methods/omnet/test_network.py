from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from common.methods.omnet import OMNet

from ..networks import Variant
from .formulas import TASKS, ThreeTasksTests, naive_backbone, naive_cga, naive_head, narrow


class TestOMNet(ThreeTasksTests):
    network = OMNet
    wrong_options = (
        ({"attention": "CGA"}, r"attention='CGA': expected one of 'cga', 'cga-', 'se', None"),
        ({"num_classes": (5, 2)}, r"num_classes=\(5, 2\): expected three numbers, the first two at least 4"),
        ({"num_classes": (5, 3, 2)}, r"num_classes=\(5, 3, 2\): expected three"),
        ({"statistics_window": (32, 32)}, r"statistics_window=\(32, 32\): expected None or three sizes"),
        ({"statistics_window": (32, 32, 0)}, r"statistics_window=\(32, 32, 0\): expected None or three sizes"),
    )


class TestStatisticsOfWindows(Variant, TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "statistics_window": (8, 8, 8)}


class TestPlainHeads(Variant, TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "attention": None}


class TestSqueezeAndExcitation(Variant, TestOMNet):
    # 64 channels make 8 hidden units; of few, all may be dead at the start, and nothing before them has a gradient
    options: ClassVar[dict[str, Any]] = {"channels": (64, 4), "attention": "se"}


@pytest.mark.slow
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


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_outputs_keep_the_precision_of_the_network(precision: torch.dtype) -> None:
    network = narrow(statistics_window=(8, 8, 4)).to(precision)

    outputs = network(torch.randn(1, 4, 8, 8, 8, dtype=precision))
    assert {output.dtype for output in outputs.values()} == {precision}
