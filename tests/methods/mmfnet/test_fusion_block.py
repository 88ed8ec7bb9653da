from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import profile

from common.methods.mmfnet.fusion import PART, ChannelAttention, FusionBlock, SpatialAttention

from .formulas import BATCH_NORM_RELU, fusion_block, naive_fusion


@pytest.mark.parametrize("shared_mlp", [False, True])
@pytest.mark.parametrize("std_pool", ["both", "channel", "spatial", "none"])
def test_fusion_block_follows_the_equations(shared_mlp: bool, std_pool: str) -> None:
    block, f_ori = fusion_block(shared_mlp, std_pool), torch.randn(2, 12, 6, 5, 4)

    with torch.no_grad():
        torch.testing.assert_close(block(f_ori), naive_fusion(block, f_ori, shared_mlp, std_pool))


@pytest.mark.parametrize("shared_mlp", [False, True])
@pytest.mark.parametrize("std_pool", ["both", "channel", "spatial", "none"])
@pytest.mark.parametrize("part", [1, 200, 2**17])
def test_parts_follow_the_equations(
    shared_mlp: bool, std_pool: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.methods.mmfnet.fusion.PART", part)
    block, f_ori = fusion_block(shared_mlp, std_pool), torch.randn(2, 12, 6, 5, 4)
    f_ori[1] = 3 * f_ori[1] + 100  # far from 0, so that a difference of squares would lose its digits

    with torch.no_grad():
        found = block(f_ori.contiguous(memory_format=torch.channels_last_3d))
        torch.testing.assert_close(found, naive_fusion(block, f_ori, shared_mlp, std_pool), rtol=1e-5, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_parts_equal_the_whole_in_bfloat16() -> None:
    block, f_ori = fusion_block(), torch.randn(1, 12, 6, 5, 4)
    f_ori = f_ori.bfloat16().contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found, expected = block(f_ori), block(f_ori.contiguous())

    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_type_keep_it(dtype: torch.dtype) -> None:
    block, f_ori = fusion_block().to(dtype), torch.randn(1, 12, 6, 5, 4, dtype=dtype)
    with torch.no_grad():
        found, expected = block(f_ori.contiguous(memory_format=torch.channels_last_3d)), block(f_ori)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)


def test_parts_need_no_map_of_all_channels() -> None:
    block = FusionBlock(48, 2, reduction=3, shared_mlp=False, std_pool="both", **BATCH_NORM_RELU).eval()
    f_ori = torch.randn(1, 48, 64, 64, 16).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad(), profile(profile_memory=True) as found:
        block(f_ori)

    largest = max(event.cpu_memory_usage for event in found.events())
    assert largest <= max(4 * PART, 4 * 3 * f_ori[0, 0].numel())


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
