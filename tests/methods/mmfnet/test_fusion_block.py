from __future__ import annotations

import pytest
import torch
from torch import nn

from common.methods.mmfnet.network import ChannelAttention, SpatialAttention

from .formulas import fusion_block, naive_fusion


@pytest.mark.parametrize("shared_mlp", [False, True])
@pytest.mark.parametrize("std_pool", ["both", "channel", "spatial", "none"])
def test_fusion_block_follows_the_equations(shared_mlp: bool, std_pool: str) -> None:
    block, f_ori = fusion_block(shared_mlp, std_pool), torch.randn(2, 12, 6, 5, 4)

    with torch.no_grad():
        torch.testing.assert_close(block(f_ori), naive_fusion(block, f_ori, shared_mlp, std_pool))


def test_attention_weights_are_between_0_and_1() -> None:
    f_ori = 3 * torch.randn(2, 12, 6, 5, 4)
    w_c = ChannelAttention(12, reduction=3, shared_mlp=False, use_std=True)(f_ori)
    w_s = SpatialAttention(use_std=True)(f_ori)

    assert w_c.shape == (2, 12, 1, 1, 1)
    assert w_s.shape == (2, 1, 6, 5, 4)
    for weights in (w_c, w_s):
        assert weights.min() > 0
        assert weights.max() < 1
        assert weights.std() > 0


def test_attention_of_zeros_adds_a_quarter() -> None:
    block, f_ori = fusion_block(), torch.randn(2, 12, 6, 5, 4)
    for layer in [*(mlp[2] for mlp in block.channel_attention.mlps), block.spatial_attention.conv]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    block.residual_fusion = nn.Identity()

    assert torch.equal(block(f_ori), 1.25 * f_ori)  # 1 + W_c * W_s = 1 + 0.5 * 0.5


def test_refinement_of_zeros_keeps_the_reduced_features() -> None:
    residual = fusion_block().residual_fusion
    features = torch.randn(2, 12, 6, 5, 4)
    nn.init.zeros_(residual.refine[1].weight)
    nn.init.zeros_(residual.refine[1].bias)

    assert torch.equal(residual(features), residual.reduce(features))


def test_refinement_stays_within_the_slice() -> None:
    """Check the axes of the kernel: the paper's 1x3x3 is (D, H, W), slices first."""
    residual = fusion_block().residual_fusion
    features = torch.randn(1, 12, 9, 9, 5)
    changed = features.clone()
    changed[:, :, 4, 4, 2] += 1
    with torch.no_grad():
        reached = (residual(features) != residual(changed)).any(1)[0].nonzero()

    assert [conv.weight.shape[2:] for conv in (residual.refine[0].conv, residual.refine[1])] == [(3, 3, 1)] * 2
    assert reached.amin(0).tolist() == [2, 2, 2]
    assert reached.amax(0).tolist() == [6, 6, 2]
