from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor, nn

from common.methods.mmfnet import MMFNet
from common.methods.mmfnet.network import Encoder, FusionBlock

from ..networks import NetworkTests
from .formulas import (
    BATCH_NORM_RELU,
    naive_batch_norm,
    naive_convolution,
    naive_fusion,
    parameters,
    trained_batch_norms,
)


class TestMMFNet(NetworkTests):
    network = MMFNet
    # of few hidden units with a ReLU, all may be dead at the start, and nothing before them has a gradient
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "reduction": 1}
    image = (2, 3, 16, 12, 8)
    out_channels = 1
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "out_channels": 3}
    other_out_channels = 3


# Parameter counts of the paper's network, with the decisions of docs/explanation/mmfnet.md.


def test_encoder_parameters() -> None:
    encoder = Encoder(1, (8, 16, 32, 64), **BATCH_NORM_RELU)

    assert [parameters(block) for block in encoder.blocks] == [1_976, 10_432, 41_600, 166_144]
    assert parameters(encoder.bottom) == 110_720
    assert parameters(encoder) == 330_872


def test_fusion_parameters() -> None:
    fusions = MMFNet().fusions

    assert [parameters(fusion) for fusion in fusions] == [1_824, 6_830, 26_634, 105_410]
    finest, coarsest = (
        [
            parameters(fusion.channel_attention),
            parameters(fusion.spatial_attention),
            parameters(fusion.residual_fusion.reduce),
            *(parameters(layer) for layer in fusion.residual_fusion.refine),
        ]
        for fusion in (fusions[0], fusions[3])
    )
    assert finest == [366, 82, 200, 592, 584]
    assert coarsest == [19_056, 82, 12_352, 36_992, 36_928]


@pytest.mark.parametrize(("in_channels", "hidden"), [(3, [2, 4, 8, 16]), (2, [1, 2, 5, 10])])
def test_hidden_width_of_the_mlps(in_channels: int, hidden: list[int]) -> None:
    fusions = MMFNet(in_channels).fusions

    assert [fusion.channel_attention.mlps[0][0].out_features for fusion in fusions] == hidden


def test_decoder_parameters() -> None:
    network = MMFNet()

    assert [parameters(block) for block in network.decoder] == [319_680, 71_776, 17_968, 4_504]
    assert parameters(network.decoder) + parameters(network.head) == 413_937


def test_batch_norm_buffers() -> None:
    assert sum(b.numel() for b in MMFNet().buffers()) == 2_339


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param({}, 1_547_251, id="full"),
        pytest.param({"in_channels": 1, "fusion": "concat"}, 679_273, id="single modality"),
        pytest.param({"separate_encoders": False, "fusion": "concat"}, 3_681_897, id="single encoder"),
        pytest.param({"fusion": "concat"}, 1_700_313, id="multi-encoder baseline"),
        pytest.param({"shared_mlp": True, "std_pool": "none"}, 1_530_043, id="base"),
        pytest.param({"std_pool": "none"}, 1_538_593, id="multi-MLP"),
        pytest.param({"std_pool": "channel"}, 1_547_143, id="std in channel attention"),
        pytest.param({"std_pool": "spatial"}, 1_538_701, id="std in spatial attention"),
        pytest.param({"bottleneck": "fusion"}, 1_587_125, id="fused bottleneck"),
        pytest.param({"in_channels": 2}, 1_163_375, id="two modalities"),
    ],
)
def test_parameters_of_the_variants(options: dict, count: int) -> None:
    assert parameters(MMFNet(**options)) == count

    network = MMFNet(**options, channels=(2, 4))  # every variant also runs
    assert network(torch.randn(2, network.in_channels, 8, 8, 8)).shape == (2, 1, 8, 8, 8)


def test_encoder_halves_every_axis_per_level() -> None:
    features = Encoder(1, (8, 16, 32, 64), **BATCH_NORM_RELU)(torch.randn(1, 1, 32, 48, 16))

    assert [tuple(f.shape[1:]) for f in features] == [
        (8, 32, 48, 16),
        (16, 16, 24, 8),
        (32, 8, 12, 4),
        (64, 4, 6, 2),
        (64, 2, 3, 1),
    ]


# The whole network.


def naive_mmfnet(network: MMFNet, x: Tensor) -> Tensor:
    """Compute figure 3 in eval mode, with plain skips if the network has no fusion blocks."""

    def convolution(x: Tensor, block: nn.Module) -> Tensor:
        return naive_batch_norm(naive_convolution(x, block.conv), block.adn.N).clamp(min=0)

    def halve(x: Tensor) -> Tensor:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).amax((5, 6, 7))

    def double(x: Tensor, up: nn.Module) -> Tensor:
        larger = torch.zeros(x.shape[0], up.weight.shape[1], *(2 * size for size in x.shape[2:]))
        for i, j, k in itertools.product((0, 1), repeat=3):
            larger[:, :, i::2, j::2, k::2] = torch.einsum("co,bcxyz->boxyz", up.weight[:, :, i, j, k], x)
        return larger + up.bias.view(1, -1, 1, 1, 1)

    levels: list[list[Tensor]] = [[] for _ in range(len(network.fusions) + 1)]
    for i, encoder in enumerate(network.encoders):
        features = x[:, i : i + 1]
        for level, (first, second) in enumerate(encoder.blocks):
            features = convolution(convolution(features, first), second)
            levels[level].append(features)
            features = halve(features)
        levels[-1].append(convolution(features, encoder.bottom))

    features = torch.cat(levels[-1], 1)
    for level, block in zip(reversed(range(len(network.fusions))), network.decoder, strict=True):
        skip = torch.cat(levels[level], 1)
        if isinstance(network.fusions[level], FusionBlock):
            skip = naive_fusion(network.fusions[level], skip, shared_mlp=False, std_pool="both")
        features = convolution(torch.cat([double(features, block.up), skip], 1), block.conv)
    return 1 / (1 + torch.exp(-naive_convolution(features, network.head)))


@pytest.mark.parametrize(("in_channels", "fusion"), [(3, "attention"), (3, "concat"), (1, "concat")])
def test_network_follows_the_figure(in_channels: int, fusion: str) -> None:
    network = trained_batch_norms(MMFNet(in_channels, channels=(3, 4), fusion=fusion, reduction=2)).eval()
    x = torch.randn(2, in_channels, 12, 8, 4)

    with torch.no_grad():
        torch.testing.assert_close(network(x), naive_mmfnet(network, x))


def permuted(blocks: Tensor, dim: int, order: list[int]) -> Tensor:
    parts = blocks.chunk(len(order), dim)
    return torch.cat([parts[i] for i in order], dim)


def test_permuted_modalities_and_weights_change_nothing() -> None:
    """Permute the modalities, their encoders and the weights that read or write the concatenated features."""
    order = [2, 0, 1]
    network = trained_batch_norms(MMFNet(channels=(4, 8))).eval()
    state = network.state_dict()
    moved = {}
    for key, value in state.items():
        if key.startswith("encoders."):
            _, i, rest = key.split(".", 2)
            value = state[f"encoders.{order[int(i)]}.{rest}"]
        elif key.endswith((".2.weight", ".2.bias", "decoder.0.up.weight")):  # .2 is the second layer of an MLP
            value = permuted(value, 0, order)
        elif key.endswith((".0.weight", "reduce.weight")):  # .0 is the first
            value = permuted(value, 1, order)
        moved[key] = value
    other = MMFNet(channels=(4, 8)).eval()
    other.load_state_dict(moved)

    x = torch.randn(1, 3, 16, 16, 8)
    with torch.no_grad():
        torch.testing.assert_close(other(x[:, order]), network(x))
        assert not torch.allclose(network(x[:, order]), network(x), atol=1e-4)


def test_load_encoders_takes_the_encoders_and_nothing_else() -> None:
    singles = [trained_batch_norms(MMFNet(1, fusion="concat", channels=(4, 8))).eval() for _ in range(3)]
    network = MMFNet(channels=(4, 8)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("encoders.")}

    network.load_encoders([single.state_dict() for single in singles])

    x = torch.randn(1, 3, 16, 16, 8)
    with torch.no_grad():
        for i, single in enumerate(singles):
            modality = x[:, i : i + 1]
            for loaded, expected in zip(network.encoders[i](modality), single.encoders[0](modality), strict=True):
                assert torch.equal(loaded, expected)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


def test_load_encoders_is_strict() -> None:
    network = MMFNet(channels=(4, 8))
    state = MMFNet(1, fusion="concat", channels=(4, 8)).state_dict()

    with pytest.raises(ValueError, match="expected 3 state dicts, one for each encoder, found 2"):
        network.load_encoders([state, state])
    incomplete = {k: v for k, v in state.items() if k != "encoders.0.bottom.conv.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*bottom.conv.weight"):
        network.load_encoders([state, state, incomplete])
    with pytest.raises(RuntimeError, match="size mismatch"):
        network.load_encoders([state, state, MMFNet(1, fusion="concat", channels=(4, 16)).state_dict()])


def train(network: MMFNet, steps: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    loss_function = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)
    for _ in range(steps):
        x = torch.randn(2, 3, 8, 8, 8)
        optimizer.zero_grad()
        loss_function(network(x), (x[:, :1] > 0).float()).backward()
        optimizer.step()


def test_frozen_encoders_stay_as_they_are_while_the_rest_learns() -> None:
    network = MMFNet(channels=(4, 8), reduction=1)

    def moved_by_training() -> dict[str, bool]:
        before = {k: v.clone() for k, v in network.state_dict().items()}
        train(network.train(), steps=3)  # an engine calls train() before every epoch
        return {k: not torch.equal(before[k], v) for k, v in network.state_dict().items()}

    network.freeze_encoders(True)
    moved = moved_by_training()
    assert {k for k, changed in moved.items() if not changed} == {k for k in moved if k.startswith("encoders.")}
    assert network.training
    assert network.fusions.training
    assert not network.encoders.training

    network.freeze_encoders(False)
    assert network.encoders.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(moved_by_training().values())


def test_freezing_keeps_the_mode_of_the_network() -> None:
    network = MMFNet(channels=(4, 8)).eval()
    for frozen in (True, False):
        network.freeze_encoders(frozen)
        assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("empty", [[1], [0, 1, 2]], ids=["one modality", "all modalities"])
def test_empty_modality_has_finite_gradients(empty: list[int]) -> None:
    network = MMFNet(channels=(4, 8, 8)).train()
    x = torch.randn(1, 3, 16, 16, 16)
    x[:, empty] = 0
    network(x).sum().backward()

    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "add"}, r"fusion='add': expected one of 'attention', 'concat'"),
        ({"std_pool": True}, r"std_pool=True: expected one of 'both', 'channel', 'spatial', 'none'"),
        ({"bottleneck": ""}, r"bottleneck='': expected one of 'concat', 'fusion'"),
    ],
)
def test_unknown_option_raises(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMFNet(**options)
