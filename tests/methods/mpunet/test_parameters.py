"""Test the numbers of parameters, the sizes, the options of the layers and the initialisation of MPU-Net."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.methods.mpunet import MPUNet

from ..networks import parameters
from .formulas import NARROW

PUBLISHED, UNUSED = 22_557_009, 1_049_754


def test_parameters_of_the_published_network() -> None:
    unused = [nn.ConvTranspose3d(512, 256, 2), nn.PReLU(256), nn.Conv3d(2, 2, 1)]  # up-sampling, head
    unused += [layer for c_in in (8, 2, 2) for layer in (nn.Conv3d(c_in, 2, 3), nn.PReLU(2))]  # decoder block
    with torch.device("meta"):
        network = MPUNet()
    assert sum(map(parameters, unused)) == UNUSED
    assert parameters(network) == 21_507_255 == PUBLISHED - UNUSED
    assert sum(b.numel() for b in network.buffers()) == 3_995
    # The paper's checkpoint of 250.34 MB: weights of all, Adam's two moments of those that are used.
    assert (4 * PUBLISHED + 8 * parameters(network)) / 2**20 == pytest.approx(250.34, abs=0.25)


def test_parameters_of_the_blocks() -> None:
    with torch.device("meta"):
        network = MPUNet()
    assert list(map(parameters, network.encoder)) == [7_408, 55_424, 221_440, 885_248, 3_539_968]
    assert list(map(parameters, network.down)) == [4_192, 16_576, 65_920, 885_504, 3_540_480]
    assert parameters(network.bottom) == 5_392_195 and parameters(network.bottom[3]) == 82_241
    assert list(map(parameters, network.coarse_heads)) == [514, 258, 130] and parameters(network.head) == 66
    stages = [*network.decoder, network.finest]
    assert [parameters(stage.up) for stage in stages] == [0, 262_400, 65_664, 16_448]
    assert [parameters(stage.refine) for stage in stages] == [4_425_216, 1_549_056, 387_456, 96_960]
    assert [parameters(stage.gate) for stage in stages] == [66_435, 16_835, 4_323, 1_139]


def test_sizes_of_the_published_network() -> None:
    with torch.device("meta"):
        network = MPUNet()
    seen: list[tuple[int, ...]] = []
    network.bottom.register_forward_hook(lambda _, x, y: seen.extend((tuple(x[0].shape), tuple(y.shape))))
    outputs = network(torch.zeros(1, 1, 32, 32, 16, device="meta"))
    assert seen == [(1, 512, 4, 4, 2), (1, 256, 4, 4, 2)]
    assert list(outputs) == ["seg", "aux_8", "aux_4", "aux_2"]
    assert {tuple(t.shape) for t in outputs.values()} == {(1, 2, 32, 32, 16)}


def test_two_branches_take_half_the_width_each() -> None:
    refine = MPUNet(block="two_branch", **NARROW).finest.refine
    # 4 + 4 channels in; branches of 2 channels, each convolution with a bias and as many slopes; 1x1x1 from 4 to 4
    branch = {k: (8 * 2 * k**3 + 4) + (2 * 2 * k**3 + 4) for k in (3, 5)}
    assert parameters(refine) == branch[3] + branch[5] + 4 * 4 + 4


@pytest.mark.parametrize(("alpha", "alphas"), [(1.0, [1] * 5), (1, [1] * 5), ("channels", [4, 8, 8, 16, 32])])
def test_alpha_of_the_elus(alpha: float | str, alphas: list[int]) -> None:
    network = MPUNet(elu_alpha=alpha, **NARROW)
    assert [m.alpha for m in network.modules() if isinstance(m, nn.ELU)] == alphas


def test_dropout_and_momentum() -> None:
    network = MPUNet(dropout=0.3, bn_momentum=0.02, **NARROW)
    dropouts = {name: m.p for name, m in network.named_modules() if isinstance(m, nn.Dropout)}
    assert {name for name, p in dropouts.items() if p != 0.3} == {"encoder.0.dropout", "finest.dropout"}
    assert dropouts["encoder.0.dropout"] == dropouts["finest.dropout"] == 0 and len(dropouts) == 9
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == 5 + 2 + 4 * 3 and {m.momentum for m in norms} == {0.02}


def test_initialisation() -> None:
    network = MPUNet()
    for weight, fan_in in ((network.bottom[0].weight, 512 * 27), (network.decoder[1].up[0].weight, 128 * 8)):
        assert weight.detach().std() == pytest.approx(math.sqrt(2 / (1 + 0.25**2) / fan_in), rel=0.01)
    assert not any(p.any() for m in network.modules() if isinstance(m, nn.Conv3d) for p in [m.bias])
    assert network.bottom[3].gamma == 0
