"""Test the numbers of parameters of the paper's network, with the decisions of docs/explanation/mmfnet.md."""

from __future__ import annotations

import pytest

from common.methods.mmfnet import MMFNet
from common.methods.mmfnet.network import Encoder

from ..networks import parameters
from .formulas import BATCH_NORM_RELU


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
