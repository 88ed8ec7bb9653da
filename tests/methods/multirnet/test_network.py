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
    InputTransition,
    SegmentationSubnet,
    UpSampling,
    UpTransition,
    reverse_attention,
)

from ..networks import TwoFormsTests

MODES = ("shared", "own", "off")


def narrow(**options: object) -> MultiRNet:
    """Five levels; in eval mode, with statistics, slopes and up-samplings as after training."""
    widths = {"channels": (2, 3, 4, 5, 6), "classifier_channels": (2, 3, 4)}
    return trained(MultiRNet(**{**widths, "kernel_size": 3, **options})).eval()


def trained(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.3)
        elif isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, 0.1, 0.9)
    return network


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def outputs_of(module: nn.Module) -> list[Tensor]:
    """Fills with what the module returns."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    return seen


def inputs_of(module: nn.Module) -> list[Tensor]:
    """Fills with what the module is given."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    return seen


def broadcast(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


def naive_norm(x: Tensor, norm: nn.Module) -> Tensor:
    x = (x - broadcast(norm.running_mean)) / (broadcast(norm.running_var) + 1e-5) ** 0.5
    return x * broadcast(norm.weight) + broadcast(norm.bias)


def naive_prelu(x: Tensor, act: nn.Module) -> Tensor:
    return x.clamp(min=0) + broadcast(act.weight) * x.clamp(max=0)


def naive_unit(x: Tensor, unit: nn.Module) -> Tensor:
    """Convolution without bias, with padding that keeps the size, normalisation, PReLU."""
    weight = unit.conv.weight
    return naive_prelu(naive_norm(F.conv3d(x, weight, padding=weight.shape[2] // 2), unit.adn.N), unit.adn.A)


class TestMultiRNet(TwoFormsTests):
    network = MultiRNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 6, 8), "classifier_channels": (4, 6, 8), "kernel_size": 3}
    image = (2, 1, 16, 12, 8)
    out_channels = 1 + 3
    heads: ClassVar[dict[str, int]] = {"seg": 1, "class": 3}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": 4}
    other_out_channels = 1 + 4
    without_gradient = r"\.up\.conv\.bias"  # batch normalisation takes these biases away


class TestOwnUpSamplingAndMeanOfSigmoids(TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {
        **TestMultiRNet.options,
        "reverse_attention": "own",
        "fusion": "mean_sigmoid",
        "iterations": 0,
    }


class TestWithoutReverseAttention(TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {**TestMultiRNet.options, "reverse_attention": "off", "iterations": 1}


class TestSegmentationAlone(TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {**TestMultiRNet.options, "task": "seg"}
    out_channels = other_out_channels = 1
    heads: ClassVar[dict[str, int]] = {"seg": 1}


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


# The segmentation subnet.


def copy_unit(ours: nn.Module, conv: nn.Module, norm: nn.Module, act: nn.Module | None) -> None:
    ours.conv.load_state_dict(conv.state_dict())
    ours.adn.N.load_state_dict(norm.state_dict())
    if act is not None:
        ours.adn.A.load_state_dict(act.state_dict())


def copy_stage(ours: nn.Module, theirs: nn.Module) -> None:
    for unit, lu in zip(ours.convs, theirs.ops, strict=True):
        copy_unit(unit, lu.conv_block.conv, lu.conv_block.adn.N, lu.act_function)
    ours.act.load_state_dict(theirs.act_function2.state_dict())


def test_without_reverse_attention_the_backbone_is_the_v_net_of_monai() -> None:
    theirs = trained(VNet(act="prelu")).eval()
    ours = SegmentationSubnet(1, (16, 32, 64, 128, 256), kernel_size=5, reverse_attention="off", fusion="logits").eval()
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


def test_channels_last_gives_the_same() -> None:
    network, image = narrow(channels=(8, 8, 8, 8, 8), dense=True), torch.rand(2, 1, 32, 16, 16)
    features = outputs_of(network.segmentation.decoder[-1])
    with torch.no_grad():
        expected = network(image)
        network.to(memory_format=torch.channels_last_3d)
        output = network(image.to(memory_format=torch.channels_last_3d))

    torch.testing.assert_close(output, expected)
    assert features[-1].is_contiguous(memory_format=torch.channels_last_3d)  # on the way no layer went back


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


def test_sizes_of_every_level_for_the_paper_s_region() -> None:
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
    with pytest.raises(ValueError, match="spatial size 5 is not divisible by 2; pad to 6"):
        network(torch.randn(2, 1, 6, 5, 10))


# The classification subnet.


@pytest.mark.parametrize("stride", [1, 2])
def test_a_module_of_the_classifier(stride: int) -> None:
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


def test_the_diagnosis_depends_on_the_last_level_of_the_decoder_in_two_ways() -> None:
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


def test_the_diagnosis_trains_the_segmentation_through_the_lesions() -> None:
    network = narrow().train()
    nn.init.zeros_(network.head.weight[:, -4:].detach())  # without the pooled features of the decoder

    network(torch.rand(2, 1, 32, 32, 32))["class"][:, 0].sum().backward()

    assert network.segmentation.bottom_head[0].weight.grad.any()
    assert network.segmentation.encoder[0].conv.conv.weight.grad.any()


def test_the_segmentation_alone_is_the_same() -> None:
    both, alone, image = narrow(), narrow(task="seg"), torch.rand(1, 1, 32, 16, 16)
    alone.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith("segmentation.")})

    with torch.no_grad():
        outputs = alone(image)
        assert outputs["seg"].equal(both(image)["seg"])
    assert list(outputs) == ["seg"]


# Iterative learning.


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_the_dense_form_makes_the_passes_of_algorithm_1(iterations: int) -> None:
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


def test_each_pass_changes_the_result() -> None:
    network, image = narrow(dense=True), torch.rand(1, 1, 32, 16, 16)
    results = []
    with torch.no_grad():
        for network.iterations in (0, 1, 2):
            results.append(network(image)[:, :1])

    assert not results[1].allclose(results[0], atol=1e-3)
    assert not results[2].allclose(results[1], atol=1e-5)
    assert MultiRNet(channels=(2, 2), classifier_channels=(2,)).iterations == 2


def test_no_map_has_gone_before_the_first_pass() -> None:
    network, image = narrow(), torch.rand(1, 1, 32, 16, 16)

    with torch.no_grad():
        torch.testing.assert_close(network(image), network(image, torch.zeros_like(image)))


def test_mixed_precision_gives_maps_in_float32() -> None:
    network, image = narrow(), torch.rand(1, 1, 32, 16, 16)

    with torch.no_grad():
        expected = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(image)
            network.dense = True
            dense = network(image)

    assert outputs["seg"].dtype == dense.dtype == torch.float32
    torch.testing.assert_close(outputs["seg"], expected["seg"], rtol=0.1, atol=0.1)


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reverse_attention": "on"}, "reverse_attention='on': expected one of 'shared', 'own', 'off'"),
        ({"fusion": "sum"}, "fusion='sum': expected one of 'logits', 'mean_sigmoid'"),
        ({"task": "cls"}, "task='cls': expected one of 'both', 'seg'"),
        ({"kernel_size": 4}, "kernel_size=4: expected an odd number"),
        ({"iterations": -1}, "iterations=-1: expected 0, one pass, or more"),
        ({"channels": (8,)}, "channels=.*: expected two to 5 widths, the first a multiple of in_channels=1"),
        ({"channels": (2,) * 6}, "channels=.*: expected two to 5 widths"),
        ({"in_channels": 3, "channels": (8, 8)}, "the first a multiple of in_channels=3"),
    ],
)
def test_an_option_that_there_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiRNet(**options)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((96, 96, 40), "spatial size 40 is not divisible by 16; pad to 48"),
        ((90, 96, 32), "spatial size 90 is not divisible by 16; pad to 96"),
    ],
)
@pytest.mark.parametrize("dense", [False, True])
def test_sizes_are_multiples_of_16(size: tuple[int, ...], message: str, dense: bool) -> None:
    with pytest.raises(ValueError, match=message):
        narrow(dense=dense)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("change", [lambda p: p[:1], lambda p: torch.cat([p, p], 1), lambda p: p[..., :1]])
def test_previous_probabilities_of_another_shape(change: Callable[[Tensor], Tensor]) -> None:
    image = torch.zeros(2, 1, 16, 16, 16)  # without the check broadcasting would take all of these

    with pytest.raises(ValueError, match=r"previous probabilities \[2, 1, 16, 16, 16\], found shape \["):
        narrow()(image, change(image))
