from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import VNet
from torch import Tensor, nn

from common.methods.multirnet import MultiRNet
from common.methods.multirnet.network import (
    ClassifierModule,
)

from ..networks import TwoFormsTests, Variant
from .formulas import (
    MODES,
    inputs_of,
    naive_norm,
    narrow,
    outputs_of,
    parameters,
    trained,
)


class TestMultiRNet(TwoFormsTests):
    network = MultiRNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 6, 8), "classifier_channels": (4, 6, 8), "kernel_size": 3}
    image = (2, 1, 16, 12, 8)
    out_channels = 1 + 3
    heads: ClassVar[dict[str, int]] = {"seg": 1, "class": 3}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": 4}
    other_out_channels = 1 + 4
    without_gradient = r"\.up\.conv\.bias"  # batch normalisation takes these biases away
    test_inference_form_follows_from_the_training_form = None  # by the passes of algorithm 1, see below


class TestOwnUpSamplingAndMeanOfSigmoids(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {
        **TestMultiRNet.options,
        "reverse_attention": "own",
        "fusion": "mean_sigmoid",
        "iterations": 0,
    }


class TestWithoutReverseAttention(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {**TestMultiRNet.options, "reverse_attention": "off", "iterations": 1}


class TestSegmentationAlone(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {**TestMultiRNet.options, "task": "seg"}
    out_channels = other_out_channels = 1
    heads: ClassVar[dict[str, int]] = {"seg": 1}


class TestThreeLabelsAndTwoModalities(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {
        **TestMultiRNet.options,
        "channels": (5, 6, 8),
        "in_channels": 2,
        "out_channels": 3,
    }
    image = (2, 2, 16, 12, 8)
    out_channels = 3 + 3
    heads: ClassVar[dict[str, int]] = {"seg": 3, "class": 3}
    other: ClassVar[dict[str, Any]] = {"in_channels": 3, "out_channels": 2, "num_classes": 4}
    other_out_channels = 2 + 4


# Parameters.


def test_parameters_of_the_paper() -> None:
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

    assert parameters(options["own"]) == 48_689_576 + 434_416
    assert options["shared"].state_dict().keys() == options["off"].state_dict().keys()
    assert parameters(alone) == 45_631_685
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


# The classification subnet.


@pytest.mark.parametrize("stride", [1, 2])
def test_classifier_module_against_its_formula(stride: int) -> None:
    module, x = trained(ClassifierModule(3, 5, stride)).eval(), torch.randn(2, 3, 6, 7, 4)
    convolved = naive_norm(F.conv3d(x, module.conv.conv.weight, stride=stride, padding=1), module.conv.adn.N)
    projected = torch.einsum("oc,bcxyz->boxyz", module.shortcut.conv.weight[..., 0, 0, 0], x)[
        :, :, ::stride, ::stride, ::stride
    ]

    expected = (convolved + naive_norm(projected, module.shortcut.adn.N)).clamp(min=0)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("passed", [False, True])
def test_the_classifier_sees_the_image_within_the_lesions(passed: bool) -> None:
    network, image = narrow(), torch.rand(2, 1, 32, 16, 16)
    previous = torch.rand(image.shape) if passed else None
    seen, last, d1 = inputs_of(network.classifier), outputs_of(network.classifier), outputs_of(network.segmentation)

    outputs = network(image, previous)

    torch.testing.assert_close(seen[0], outputs["seg"].sigmoid() * image)
    pooled = torch.cat([last[0].flatten(2).mean(2), d1[0][1].flatten(2).mean(2)], 1)
    torch.testing.assert_close(outputs["class"], pooled @ network.head.weight.T + network.head.bias)
    network(torch.zeros_like(image), previous)
    assert not seen[1].any()


def test_diagnosis_depends_on_decoder_features_in_two_ways() -> None:
    network, image = narrow(num_classes=4), torch.rand(1, 1, 32, 16, 16)
    with torch.no_grad():
        logits, features = network.segmentation(image)
    features.requires_grad_()
    assert features.shape == (1, 4, 32, 16, 16)

    def gradient(lesions: Tensor) -> Tensor:
        return torch.autograd.grad(network.classify(lesions, features)[0, 2], features)[0]

    pooled = gradient(image * logits.sigmoid())
    both = gradient(image * (logits + network.segmentation.heads[3](features)).sigmoid())

    voxels = 32 * 16 * 16
    torch.testing.assert_close(pooled[0].flatten(1), network.head.weight[2, -4:, None].expand(4, voxels) / voxels)
    assert not both.isclose(pooled, rtol=1e-3).all()


def test_grad_cam_finds_its_layer_by_name() -> None:
    network = narrow()
    layer = network.get_submodule("segmentation.decoder.3")
    features = outputs_of(layer)

    network(torch.rand(1, 1, 32, 16, 16))["class"][0, 0].backward(inputs=features)

    assert features[0].shape == features[0].grad.shape == (1, 4, 32, 16, 16)
    assert features[0].grad.any()


def test_diagnosis_trains_the_segmentation_through_lesions() -> None:
    network = narrow().train()
    nn.init.zeros_(network.head.weight[:, -4:].detach())  # without the pooled features of the decoder

    network(torch.rand(2, 1, 32, 32, 32))["class"][:, 0].sum().backward()

    assert network.segmentation.bottom_head[0].weight.grad.any()
    assert network.segmentation.encoder[0].conv.conv.weight.grad.any()


def test_segmentation_alone_equals_that_of_both_tasks() -> None:
    both, alone, image = narrow(), narrow(task="seg"), torch.rand(1, 1, 32, 16, 16)
    alone.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith("segmentation.")})

    with torch.no_grad():
        outputs = alone(image)
        assert outputs["seg"].equal(both(image)["seg"])
    assert list(outputs) == ["seg"]


# Iterative learning.


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_inference_form_makes_the_passes_of_algorithm_1(iterations: int) -> None:
    network, image = narrow(), torch.rand(2, 1, 32, 16, 16)
    with torch.no_grad():
        outputs, inputs = network(image), [image]
        for _ in range(iterations):
            f_seg = outputs["seg"].sigmoid()
            inputs.append(image + f_seg)
            outputs = network(image, f_seg)
    network.dense, network.iterations = True, iterations
    v_input, classified = inputs_of(network.segmentation), inputs_of(network.classifier)

    dense = network(image)

    assert dense.shape == (2, 4, 32, 16, 16)
    torch.testing.assert_close(dense[:, :1], outputs["seg"].sigmoid())
    torch.testing.assert_close(dense[:, 1:], outputs["class"][:, :, None, None, None].expand(2, 3, 32, 16, 16))
    assert len(classified) == 1
    torch.testing.assert_close(v_input, inputs)
    assert not any(v.requires_grad for v in v_input)  # no gradient from one pass into the one before


def test_the_lesion_of_several_labels_is_their_maximum() -> None:
    network, image = narrow(in_channels=2, out_channels=3), torch.rand(2, 2, 32, 16, 16)
    previous = torch.rand(2, 3, 32, 16, 16)
    v_input, classified = inputs_of(network.segmentation), inputs_of(network.classifier)

    outputs = network(image, previous)

    torch.testing.assert_close(v_input[0], image + previous.max(1, keepdim=True).values)
    torch.testing.assert_close(classified[0], image * outputs["seg"].sigmoid().max(1, keepdim=True).values)
    with pytest.raises(ValueError, match=r"previous probabilities \[2, 3, 32, 16, 16\], found shape \[2, 1, 32"):
        network(image, previous[:, :1])


def test_each_pass_changes_the_result() -> None:
    network, image = narrow(dense=True), torch.rand(1, 1, 32, 16, 16)
    results = []
    with torch.no_grad():
        for network.iterations in (0, 1, 2):
            results.append(network(image)[:, :1])

    assert not results[1].allclose(results[0], atol=1e-3)
    assert not results[2].allclose(results[1], atol=1e-5)
    assert MultiRNet(channels=(2, 2), classifier_channels=(2,)).iterations == 2


def test_first_pass_equals_one_with_a_map_of_zeros() -> None:
    network, image = narrow(), torch.rand(1, 1, 32, 16, 16)

    with torch.no_grad():
        torch.testing.assert_close(network(image), network(image, torch.zeros_like(image)))


def test_training_form_gives_maps_in_float32_under_autocast() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert narrow()(torch.rand(1, 1, 32, 16, 16))["seg"].dtype == torch.float32


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reverse_attention": "on"}, "reverse_attention='on': expected one of 'shared', 'own', 'off'"),
        ({"fusion": "sum"}, "fusion='sum': expected one of 'logits', 'mean_sigmoid'"),
        ({"task": "cls"}, "task='cls': expected one of 'both', 'seg'"),
        ({"kernel_size": 4}, "kernel_size=4: expected an odd number"),
        ({"iterations": -1}, "iterations=-1: expected 0, one pass, or more"),
        ({"channels": (8,)}, "channels=.*: expected two to 5 widths"),
        ({"channels": (2,) * 6}, "channels=.*: expected two to 5 widths"),
        ({"in_channels": 0}, "in_channels=0, out_channels=1: expected at least 1 of both"),
        ({"out_channels": 0}, "in_channels=1, out_channels=0: expected at least 1 of both"),
    ],
)
def test_unknown_option_raises(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiRNet(**options)


@pytest.mark.parametrize("change", [lambda p: p[:1], lambda p: torch.cat([p, p], 1), lambda p: p[..., :1]])
def test_previous_probabilities_of_another_shape(change: Callable[[Tensor], Tensor]) -> None:
    image = torch.zeros(2, 1, 16, 16, 16)  # without the check broadcasting would take all of these

    with pytest.raises(ValueError, match=r"previous probabilities \[2, 1, 16, 16, 16\], found shape \["):
        narrow()(image, change(image))
