from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.methods.mpunet.attention import AttentionGate, PositionAttention

from .formulas import lively, plain_attention, plain_gate


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(1, 16, 4, 4, 2)
    assert torch.equal(PositionAttention(16)(x), x)


@pytest.mark.parametrize("linear", [True, False])
def test_attention_is_unscaled_with_shares_of_all_keys(linear: bool) -> None:
    attention, x = lively(PositionAttention(64, linear)), torch.randn(2, 64, 4, 3, 5)
    torch.testing.assert_close(attention(x), plain_attention(attention, x), rtol=1e-4, atol=1e-5)

    y = attention(x)
    with torch.no_grad():  # the usual scale would show
        attention.projection.weight[:8] /= math.sqrt(8)
        attention.projection.bias[:8] /= math.sqrt(8)
    assert (attention(x) - y).abs().max() > 0.1


def test_attention_ignores_the_order_of_positions() -> None:
    attention, x = lively(PositionAttention(16)), torch.randn(1, 16, 3, 4, 2)
    order = torch.randperm(24)

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(2)[:, :, order].unflatten(2, (3, 4, 2))

    torch.testing.assert_close(attention(permuted(x)), permuted(attention(x)))


@pytest.mark.parametrize("peaked", [1, 5])
def test_linear_attention_equals_the_explicit_form(peaked: int) -> None:
    linear, explicit = lively(PositionAttention(256)), PositionAttention(256, linear=False)
    with torch.no_grad():
        linear.projection.weight[:64] *= peaked  # queries and keys
    explicit.load_state_dict(linear.state_dict())
    inputs = [torch.randn(1, 256, 16, 16, 6, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    weights = torch.randn(inputs[0].shape)
    gradients = []
    for attention, x in zip((linear, explicit), inputs):
        y = attention(x.requires_grad_())
        (y * weights).sum().backward()
        gradients.append(
            [y.detach(), x.grad, *(p.grad for name, p in attention.named_parameters() if name != "key.bias")]
        )
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * max(1.0, float(theirs.abs().max())))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_linear_attention_takes_the_flash_kernel(layout: torch.memory_format) -> None:
    attention, x = PositionAttention(256), torch.randn(2, 256, 4, 4, 2).to(memory_format=layout)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises if it cannot
        attention(x.requires_grad_()).sum().backward()


def test_gate_against_its_equations() -> None:
    gate = lively(AttentionGate(8, 0.1))
    x, g = torch.randn(2, 2, 8, 4, 6, 2).unbind()
    coefficient = gate.coefficient(x, g)
    assert coefficient.shape == (2, 1, 4, 6, 2)
    assert coefficient.min() > 0 and coefficient.max() < 1
    assert (gate(x, g).abs() <= x.abs()).all()
    torch.testing.assert_close(gate(x, g), plain_gate(gate, x, g))
