from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from common.methods.mmfnet import MMFNet

from ..networks import NetworkTests
from .formulas import naive_mmfnet, trained_batch_norms


class TestMMFNet(NetworkTests):
    network = MMFNet
    # of few hidden units with a ReLU, all may be dead at the start, and nothing before them has a gradient
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "reduction": 1}
    image = (2, 3, 16, 12, 8)
    out_channels = 1
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "out_channels": 3}
    other_out_channels = 3
    parameter_counts = (
        ({}, 1_547_251),
        ({"in_channels": 1, "fusion": "concat"}, 679_273),  # single modality
        ({"separate_encoders": False, "fusion": "concat"}, 3_681_897),  # single encoder
        ({"fusion": "concat"}, 1_700_313),  # multi-encoder baseline
        ({"shared_mlp": True, "std_pool": "none"}, 1_530_043),  # base
        ({"std_pool": "none"}, 1_538_593),  # multi-MLP
        ({"std_pool": "channel"}, 1_547_143),
        ({"std_pool": "spatial"}, 1_538_701),
        ({"bottleneck": "fusion"}, 1_587_125),
        ({"in_channels": 2}, 1_163_375),
    )
    wrong_options = (
        ({"fusion": "add"}, r"fusion='add': expected one of 'attention', 'concat'"),
        ({"std_pool": True}, r"std_pool=True: expected one of 'both', 'channel', 'spatial', 'none'"),
        ({"bottleneck": ""}, r"bottleneck='': expected one of 'concat', 'fusion'"),
    )


def test_every_variant_runs() -> None:
    for options, _ in TestMMFNet.parameter_counts:
        network = MMFNet(**options, channels=(2, 4))
        assert network(torch.randn(2, network.in_channels, 8, 8, 8)).shape == (2, 1, 8, 8, 8), options


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


@pytest.mark.parametrize("empty", [[1], [0, 1, 2]], ids=["one modality", "all modalities"])
def test_empty_modality_has_finite_gradients(empty: list[int]) -> None:
    network = MMFNet(channels=(4, 8, 8)).train()
    x = torch.randn(1, 3, 16, 16, 16)
    x[:, empty] = 0
    network(x).sum().backward()

    assert all(p.grad.isfinite().all() for p in network.parameters())
