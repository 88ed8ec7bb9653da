from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from common.methods.mmfnet.blocks import ConvolutionBlock

from ..naive import naive_convolution, naive_norm
from .formulas import trained_batch_norms


@pytest.mark.parametrize("kernel_size", [3, (3, 3, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_block_follows_the_formula(kernel_size: int | tuple[int, int, int], layout: torch.memory_format) -> None:
    block = trained_batch_norms(ConvolutionBlock(3, 4, "batch", "relu", kernel_size)).eval()
    x = torch.randn(2, 3, 6, 5, 4).contiguous(memory_format=layout)
    expected = naive_norm(naive_convolution(x, block.conv), block.adn.N).clamp(min=0)

    torch.testing.assert_close(block(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)


def test_training_normalises_by_the_batch() -> None:
    block, x = trained_batch_norms(ConvolutionBlock(3, 4, "batch", "relu")), torch.randn(2, 3, 6, 5, 4)
    before = copy.deepcopy(block.state_dict())
    with torch.no_grad():
        found = block(x)

    expected = nn.functional.batch_norm(
        naive_convolution(x, block.conv), None, None, before["adn.N.weight"], before["adn.N.bias"], training=True
    )
    torch.testing.assert_close(found, expected.clamp(min=0))
    assert not torch.equal(block.adn.N.running_mean, before["adn.N.running_mean"])


@pytest.mark.parametrize("norm", ["instance", ("group", {"num_groups": 2}), ("batch", {"affine": False}), None])
@pytest.mark.parametrize("act", ["prelu", ("leakyrelu", {"negative_slope": 0.1}), None])
def test_other_layers_need_no_gradient_either(norm: str | tuple | None, act: str | tuple | None) -> None:
    block, x = ConvolutionBlock(3, 4, norm, act).eval(), torch.randn(2, 3, 6, 5, 4)
    with torch.no_grad():
        found = block(x)

    torch.testing.assert_close(found, block(x))
