"""Compare the PReLU that is fast on the CPU with PyTorch's."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.layers import PReLU

LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


def gradients(module, x, bfloat16=False):
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = module(x)
    (y.float() * torch.linspace(-1, 1, y[0].numel()).view(y.shape[1:])).sum().backward()
    return y.detach(), x.grad, module.weight.grad


@pytest.fixture
def x():
    return torch.randn(2, 6, 5, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("slopes", [1, 6])
@pytest.mark.parametrize("part", [1, 40, 2**17])
def test_values_and_gradients_are_those_of_pytorch(x, layout, slopes, part, monkeypatch):
    monkeypatch.setattr("common.layers.prelu.PART", part)
    x = x.contiguous(memory_format=layout)
    expected, found = gradients(nn.PReLU(slopes), x), gradients(PReLU(slopes), x)
    assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
    torch.testing.assert_close(expected[2], found[2])
    assert found[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast_gives_the_type_of_pytorch(x, layout):
    x = x.contiguous(memory_format=layout)
    expected, found = gradients(nn.PReLU(6), x, True), gradients(PReLU(6), x, True)
    assert found[0].dtype == expected[0].dtype == torch.bfloat16
    assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
    torch.testing.assert_close(expected[2], found[2], rtol=0.02, atol=0.02)


def test_without_gradients_values_are_the_same(x):
    x, module = x.contiguous(memory_format=torch.channels_last_3d), PReLU(6)
    with torch.no_grad():
        assert torch.equal(module(x), nn.PReLU(6)(x))


def test_result_may_be_changed_in_place(x):
    x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    y = PReLU(6)(x)
    y += x
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(x > 0, 2.0, 1.25))


def test_result_of_a_metatensor_may_be_changed_in_place(x):
    x = MetaTensor(x.contiguous(memory_format=torch.channels_last_3d)).requires_grad_()
    PReLU(6)(x).add_(x).sum().backward()
    assert torch.equal(x.grad, torch.where(x.as_tensor() > 0, 2.0, 1.25))


def test_script_and_trace_give_the_same_values(x):
    x, module = x.contiguous(memory_format=torch.channels_last_3d), PReLU(6)
    assert torch.equal(torch.jit.script(module)(x), module(x))
    assert torch.equal(torch.jit.trace(module, x)(x), module(x))


def test_state_dict_is_that_of_pytorch():
    PReLU(6).load_state_dict(nn.PReLU(6).state_dict())
