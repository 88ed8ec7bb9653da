"""Test the 1x1x1 convolution of MPU-Net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.methods.mpunet.blocks import PointwiseConv3d


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cases", [1, 2])
def test_pointwise_equals_the_convolution_of_pytorch(cases: int, bias: bool) -> None:
    ours, theirs = PointwiseConv3d(6, 4, bias).eval(), nn.Conv3d(6, 4, 1, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(cases, 9, 5, 4, 3)
    for features in (x[:, :6], x.contiguous(memory_format=torch.channels_last_3d)[:, 2:8, 1:4]):
        with torch.no_grad():
            torch.testing.assert_close(ours(features), theirs(features), rtol=0, atol=1e-6)
        assert torch.equal(ours(features), theirs(features))


def test_pointwise_keeps_the_channels_last_in_memory() -> None:
    x = torch.randn(1, 6, 5, 4, 3).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        y = PointwiseConv3d(6, 4).eval()(x)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
