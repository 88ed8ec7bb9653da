"""Test the numbers of parameters and the levels of MultiR-Net."""

from __future__ import annotations

import torch
from monai.networks.nets import VNet
from torch import nn

from common.methods.multirnet import MultiRNet

from ..networks import parameters
from .formulas import MODES, narrow, outputs_of


def test_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        network = MultiRNet()
    segmentation = network.segmentation

    assert parameters(network) == 48_689_576
    assert parameters(segmentation) == 45_631_685
    assert parameters(network.classifier) == 3_057_024
    assert parameters(network.head) == 867
    assert [parameters(stage) for stage in segmentation.encoder] == [2_048, 132_320, 1_041_024, 6_211_200, 16_648_704]
    assert [parameters(block) for block in segmentation.decoder] == [16_648_448, 4_228_224, 545_152, 136_384]
    heads = [segmentation.bottom_head, *segmentation.heads]
    assert [parameters(head) for head in heads] == [257 + 32_768, 257 + 4_096, 129 + 512, 65 + 64, 33]
    assert [parameters(module) for module in network.classifier] == [512, 14_464, 57_600, 229_888, 918_528, 1_836_032]
    assert sum(b.numel() for m in network.modules() if isinstance(m, nn.BatchNorm3d) for b in m.buffers()) == 8_355


def test_parameters_of_the_options() -> None:
    with torch.device("meta"):
        plain = VNet(act="prelu")
        options = {mode: MultiRNet(reverse_attention=mode) for mode in MODES}
        small = MultiRNet(kernel_size=3)
        alone = MultiRNet(task="seg")

    assert options["shared"].state_dict().keys() == options["off"].state_dict().keys()
    assert not [name for name in alone.state_dict() if not name.startswith("segmentation.")]
    assert parameters(plain) - parameters(plain.out_tr) == parameters(alone.segmentation.encoder) + parameters(
        alone.segmentation.decoder
    )
    # of 125 weights of a 5x5x5 kernel 27 stay; 1 x 16 convolution of the image, then squares of the widths
    kernels = 16 + 32**2 + 2 * 64**2 + 3 * 128**2 + 2 * 256**2 + 2 * 256**2 + 2 * 128**2 + 64**2 + 32**2
    assert parameters(small) == 48_689_576 - (125 - 27) * kernels


def test_sizes_of_every_level_for_the_papers_region() -> None:
    network = narrow(classifier_channels=(1, 1, 1, 1, 1, 2))
    stages = [*network.segmentation.encoder, *network.segmentation.decoder, *network.classifier]
    seen = [outputs_of(stage) for stage in stages]
    with torch.no_grad():
        network(torch.randn(1, 1, 96, 96, 32))

    sizes = [(96, 96, 32), (48, 48, 16), (24, 24, 8), (12, 12, 4), (6, 6, 2)]
    assert [tuple(outputs[0].shape[2:]) for outputs in seen] == [*sizes, *sizes[-2::-1], *sizes, (3, 3, 1)]


def test_levels_can_be_fewer() -> None:
    network = narrow(channels=(4, 8))

    assert network(torch.randn(2, 1, 6, 4, 10))["seg"].shape == (2, 1, 6, 4, 10)
    assert [len(stage.convs) for _, stage in network.segmentation.encoder[1:]] == [1]
