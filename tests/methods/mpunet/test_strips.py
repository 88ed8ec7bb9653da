"""Test the blocks that run in strips or on several modalities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mpunet import MPUNet
from common.methods.mpunet.blocks import maximum_of_neighbours
from common.methods.mpunet.network import ResidualStage

from .formulas import NARROW, lively


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
