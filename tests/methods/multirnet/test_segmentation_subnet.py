from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import VNet
from torch import Tensor, nn

from common.methods.multirnet.segmentation import (
    InputTransition,
    SegmentationSubnet,
    UpSampling,
    UpTransition,
    reverse_attention,
)

from ..naive import naive_norm
from .formulas import MODES, naive_prelu, naive_unit, narrow, outputs_of, trained


def copy_unit(ours: nn.Module, conv: nn.Module, norm: nn.Module, act: nn.Module | None) -> None:
    ours.conv.load_state_dict(conv.state_dict())
    ours.adn.N.load_state_dict(norm.state_dict())
    if act is not None:
        ours.adn.A.load_state_dict(act.state_dict())


def copy_stage(ours: nn.Module, theirs: nn.Module) -> None:
    for unit, lu in zip(ours.convs, theirs.ops, strict=True):
        copy_unit(unit, lu.conv_block.conv, lu.conv_block.adn.N, lu.act_function)
    ours.act.load_state_dict(theirs.act_function2.state_dict())


@pytest.mark.slow
def test_backbone_without_attention_equals_monais_vnet() -> None:
    theirs = trained(VNet(act="prelu")).eval()
    ours = SegmentationSubnet(
        1, 1, (16, 32, 64, 128, 256), kernel_size=5, reverse_attention="off", fusion="logits"
    ).eval()
    copy_unit(ours.encoder[0].conv, theirs.in_tr.conv_block.conv, theirs.in_tr.conv_block.adn.N, None)
    ours.encoder[0].act.load_state_dict(theirs.in_tr.act_function.state_dict())
    downs = (theirs.down_tr32, theirs.down_tr64, theirs.down_tr128, theirs.down_tr256)
    for (down, stage), block in zip(ours.encoder[1:], downs, strict=True):
        copy_unit(down, block.down_conv, block.bn1, block.act_function1)
        copy_stage(stage, block)
    for up, block in zip(ours.decoder, (theirs.up_tr256, theirs.up_tr128, theirs.up_tr64, theirs.up_tr32), strict=True):
        copy_unit(up.up, block.up_conv, block.bn1, None)
        up.act.load_state_dict(block.act_function1.state_dict())
        copy_stage(up.stage, block)
    features = outputs_of(theirs.up_tr32)
    image = torch.randn(1, 1, 32, 16, 16)

    with torch.no_grad():
        theirs(image)
        torch.testing.assert_close(ours(image)[1], features[0])


@pytest.mark.parametrize("in_channels", [1, 2])
def test_the_first_level_adds_the_image_repeated(in_channels: int) -> None:
    block, x = trained(InputTransition(in_channels, 6, kernel_size=3)).eval(), torch.randn(2, in_channels, 4, 5, 3)
    convolved = naive_norm(F.conv3d(x, block.conv.conv.weight, padding=1), block.conv.adn.N)
    repeated = torch.cat([x] * (6 // in_channels), 1)

    torch.testing.assert_close(block(x), naive_prelu(convolved + repeated, block.act))


def test_the_first_level_projects_channels_that_do_not_divide() -> None:
    block, x = trained(InputTransition(2, 5, kernel_size=3)).eval(), torch.randn(2, 2, 4, 5, 3)
    convolved = naive_norm(F.conv3d(x, block.conv.conv.weight, padding=1), block.conv.adn.N)

    torch.testing.assert_close(block(x), naive_prelu(convolved + x.mean(1, keepdim=True), block.act))  # at first
    assert block.project is not None and block.project.weight.requires_grad
    assert not [key for c in (1, 2) for key in InputTransition(c, 4, kernel_size=3).state_dict() if "project" in key]


def test_reverse_attention_is_equations_2_and_3() -> None:
    features, up = torch.randn(2, 3, 4, 5, 6), 3 * torch.randn(2, 3, 4, 5, 6)

    torch.testing.assert_close(reverse_attention(features, up), features * (1 - 1 / (1 + torch.exp(-up))))
    assert not reverse_attention(features, torch.full_like(up, torch.inf)).any()
    assert reverse_attention(features, torch.full_like(up, -torch.inf)).equal(features)
    # 1 - sigmoid would be 0 here
    assert reverse_attention(torch.ones(1), torch.tensor([40.0])).item() == pytest.approx(4.248354e-18, rel=1e-5, abs=0)


@pytest.mark.parametrize("mode", MODES)
def test_the_decoder_erases_the_skip_and_convolves(mode: str) -> None:
    block = trained(UpTransition(5, 3, convolutions=2, kernel_size=3, reverse_attention=mode)).eval()
    below, skip = torch.randn(2, 5, 3, 2, 4), torch.randn(2, 3, 6, 4, 8)
    up = naive_norm(F.conv_transpose3d(below, block.up.conv.weight, block.up.conv.bias, stride=2), block.up.adn.N)
    if mode == "own":
        own = F.conv_transpose3d(below, block.own_up.conv.weight, block.own_up.conv.bias, stride=2)
    weight = {"shared": lambda: 1 - up.sigmoid(), "own": lambda: 1 - own.sigmoid(), "off": lambda: 1}[mode]()
    merged = torch.cat([naive_prelu(up, block.act), skip * weight], 1)
    first, second = block.stage.convs
    expected = naive_prelu(naive_unit(naive_unit(merged, first), second) + merged, block.stage.act)

    torch.testing.assert_close(block(below, skip), expected)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_up_sampling_starts_as_trilinear_interpolation(factor: int) -> None:
    up, x = UpSampling(factor), torch.randn(2, 1, 4, 1, 3)
    expected = F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=False)

    torch.testing.assert_close(up(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(up(torch.full_like(x, 3)), torch.full_like(expected, 3))  # up to the borders
    assert [p.shape for p in up.parameters() if p.requires_grad] == [(2 * factor,) * 3]


def test_up_sampling_treats_each_map_alike() -> None:
    up, x = UpSampling(4), torch.randn(2, 3, 4, 2, 3)
    nn.init.normal_(up.weight)

    torch.testing.assert_close(up(x), torch.cat([up(single) for single in x.split(1, 1)], 1))


def test_up_sampling_never_runs_in_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # where the CPU has no fast kernel for one channel
    convolve, strides = F.conv_transpose3d, []

    def watch(x: Tensor, weight: Tensor, **options: object) -> Tensor:
        strides.append((x.stride(), weight.stride()))
        return convolve(x, weight, **options)

    monkeypatch.setattr(F, "conv_transpose3d", watch)
    up = UpSampling(2).to(memory_format=torch.channels_last_3d)
    up(torch.rand(2, 1, 3, 4, 5).to(memory_format=torch.channels_last_3d))

    padded, kernel = 5 * 6 * 7, 4 * 4 * 4
    assert strides == [((padded, padded, 6 * 7, 7, 1), (kernel, kernel, 4 * 4, 4, 1))]


@pytest.mark.parametrize("fusion", ["logits", "mean_sigmoid"])
def test_fusion_is_equation_1(fusion: str) -> None:
    network = narrow(fusion=fusion)
    segmentation = network.segmentation
    deepest_first = [outputs_of(segmentation.encoder[-1]), *(outputs_of(block) for block in segmentation.decoder)]
    convolutions = [segmentation.bottom_head[0], *(head[0] for head in segmentation.heads[:3]), segmentation.heads[3]]

    with torch.no_grad():
        seg = network(torch.randn(2, 1, 32, 16, 48))["seg"]
        scales = []
        for i, (conv, features) in enumerate(zip(convolutions, deepest_first, strict=True), start=1):
            feature = torch.einsum("c,bcxyz->bxyz", conv.weight.flatten(), features[0]).unsqueeze(1) + conv.bias
            scales.append(F.interpolate(feature, scale_factor=2 ** (5 - i), mode="trilinear", align_corners=False))
    expected = sum(scales).sigmoid() if fusion == "logits" else sum(scale.sigmoid() for scale in scales) / 5

    assert [tuple(features[0].shape[2:]) for features in deepest_first][0::2] == [(2, 1, 3), (8, 4, 12), (32, 16, 48)]
    torch.testing.assert_close(seg.sigmoid(), expected)
    assert 0 < seg.sigmoid().min() < seg.sigmoid().max() < 1


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_mean_of_sigmoids_far_from_0_keeps_logit_and_gradient(logit: float) -> None:
    network = narrow(fusion="mean_sigmoid")
    for head in (network.segmentation.bottom_head[0], *(h[0] for h in network.segmentation.heads[:3])):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, logit)
    nn.init.zeros_(network.segmentation.heads[3].weight)
    nn.init.constant_(network.segmentation.heads[3].bias, logit)

    seg = network(torch.rand(1, 1, 16, 16, 16))["seg"]
    seg.mean().backward()

    torch.testing.assert_close(seg, torch.full_like(seg, logit))  # of five equal ones, each the mean
    assert network.segmentation.heads[3].bias.grad.item() == pytest.approx(1 / 5, rel=1e-4)
