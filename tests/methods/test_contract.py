"""What every network keeps: one entry in NETWORKS runs all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN
from common.methods.mmfnet import MMFNet
from common.methods.mpunet import AdditiveUNet, MPUNet
from common.methods.multirnet import MultiRNet
from common.methods.omnet import Cascade, OMNet, SingleTaskNet


class Case(NamedTuple):
    name: str
    build: Callable[..., nn.Module]  # a narrow network in its dense form, which returns one tensor
    shape: tuple[int, ...]  # of an input (B, C, x, y, z)
    out_channels: int
    heads: dict[str, int] | None = None  # channels per output of the form for training, ``build(dense=False)``
    without_gradient: str = "(?!)"  # pattern in the names of parameters that do not change the output
    any_size: bool = False  # every spatial size fits


def omnet(**options: object) -> Callable[..., nn.Module]:
    return lambda dense=True: OMNet(**{"channels": (4, 8), **options}, dense=dense)


def multirnet(**options: object) -> Callable[..., nn.Module]:
    narrow = {"channels": (4, 6, 8), "classifier_channels": (4, 6, 8), "kernel_size": 3}
    return lambda dense=True: MultiRNet(**narrow, **options, dense=dense)


def mpunet(**options: object) -> Callable[..., nn.Module]:
    def build(dense: bool = True) -> MPUNet:
        network = MPUNet(channels=(4, 4, 8, 8, 16), **options, dense=dense)
        for module in network.modules():
            if hasattr(module, "gamma"):
                nn.init.constant_(module.gamma, 0.7)  # at the start, 0, the attention gets no gradient
        return network

    return build


def mamtln(**options: object) -> Callable[..., nn.Module]:
    narrow = {"width": 16, "planes": (8, 16, 16, 16), "blocks": (1, 1, 1, 1), "cardinality": 4, "norm_groups": 8}

    def build(dense: bool = True) -> MAMTLN:
        network = MAMTLN(**narrow, **options, dense=dense)
        # else no maximum of the pooling is below 0, and the slope before it gets no gradient
        nn.init.constant_(network.backbone.stem[0].norm.bias, -1.5)
        return network

    return build


MAMTLN_SHAPE = (2, 1, 24, 20, 6)
SUPERVISED = {"aux_va": 2, "aux_asa": 2, "seg": 2}
SUPERVISION = "aux_|fusion_asa"  # no part of the dense form
MPUNET = {"seg": 2, "aux_8": 2, "aux_4": 2, "aux_2": 2}
# biases that a normalisation by the batch takes away
UP_BIAS = r"\.up\.conv\.bias"
NO_EFFECT = r"(down\.\d\.body\.0|bottom\.[04]|gate\.\w+\.0)\.bias"
TASKS = {"coarse": 5, "tumour": 5, "enhancing": 2}
NETWORKS = [
    # reduction=1: of few hidden units with a ReLU, all may be dead at the start, and nothing before them has a gradient
    Case("mmfnet", lambda: MMFNet(channels=(4, 8), reduction=1), (2, 3, 16, 12, 8), 1),
    Case("omnet", omnet(), (2, 4, 16, 12, 8), 12, TASKS),
    Case("omnet, windows", omnet(statistics_window=(8, 8, 8)), (2, 4, 16, 12, 8), 12, TASKS),
    Case("omnet, plain", omnet(attention=None), (2, 4, 16, 12, 8), 12, TASKS),
    # 64 channels make 8 hidden units, for the reason of reduction=1 above
    Case("omnet, squeeze and excitation", omnet(attention="se", channels=(64, 4)), (2, 4, 16, 12, 8), 12, TASKS),
    Case("cascade", lambda dense=True: Cascade(channels=(4, 8), dense=dense), (2, 4, 16, 12, 8), 12, TASKS),
    Case("single task", lambda: SingleTaskNet(channels=(4, 8), dense=True), (2, 4, 16, 12, 8), 5),
    Case("multirnet", multirnet(), (2, 1, 16, 12, 8), 4, {"seg": 1, "class": 3}, UP_BIAS),
    Case(
        "multirnet, own up-sampling, mean of sigmoids",
        multirnet(reverse_attention="own", fusion="mean_sigmoid", iterations=0),
        (2, 1, 16, 12, 8),
        4,
        {"seg": 1, "class": 3},
        UP_BIAS,
    ),
    Case(
        "multirnet, no erasing",
        multirnet(reverse_attention="off", iterations=1),
        (2, 1, 16, 12, 8),
        4,
        {"seg": 1, "class": 3},
        UP_BIAS,
    ),
    Case("multirnet, no classifier", multirnet(task="seg"), (2, 1, 16, 12, 8), 1, {"seg": 1}, UP_BIAS),
    Case("mpunet", mpunet(), (2, 1, 16, 24, 8), 2, MPUNET, NO_EFFECT),
    Case("mpunet, explicit attention", mpunet(attention="explicit"), (2, 1, 16, 24, 8), 2, MPUNET, NO_EFFECT),
    Case("mpunet, finest scale", mpunet(fusion="finest"), (2, 1, 16, 24, 8), 2, {"seg": 2}, NO_EFFECT),
    Case(
        "mpunet, two branches, no attention, no gates",
        mpunet(block="two_branch", attention="off", gates=False),
        (2, 1, 16, 24, 8),
        2,
        MPUNET,
        NO_EFFECT,
    ),
    Case(
        "additive U-Net",
        lambda dense=True: AdditiveUNet(channels=(4, 8, 8, 8), dense=dense),
        (2, 1, 16, 32, 16),
        2,
        {"seg": 2, "aux_16": 2, "aux_8": 2, "aux_4": 2},
        "coarse_heads",  # with dense there is the finest map alone
    ),
    Case("mamtln", mamtln(), MAMTLN_SHAPE, 4, {**SUPERVISED, "class": 2}, SUPERVISION, True),
    Case(
        "mamtln, as released, group normalisation",
        mamtln(asa_refine=True, norm="group", pool_stride=(2, 2, 1)),
        MAMTLN_SHAPE,
        4,
        {**SUPERVISED, "class": 2},
        SUPERVISION,
        True,
    ),
    Case("mamtln, segmentation", mamtln(task="seg"), MAMTLN_SHAPE, 2, SUPERVISED, SUPERVISION, True),
    Case("mamtln, class", mamtln(task="class", num_classes=3), MAMTLN_SHAPE, 3, {"class": 3}, any_size=True),
    Case(
        "mamtln, baseline",
        mamtln(use_va=False, use_asa=False, use_ta=False, use_sds=False),
        MAMTLN_SHAPE,
        4,
        {"seg": 2, "class": 2},
        any_size=True,
    ),
]


@pytest.fixture(params=NETWORKS, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("training", [True, False])
def test_returns_one_float_map_of_the_size_of_the_input(case: Case, training: bool) -> None:
    output = case.build().train(training)(torch.randn(case.shape))

    assert type(output) is Tensor
    assert output.dtype == torch.float32
    assert output.shape == (case.shape[0], case.out_channels, *case.shape[2:])
    assert output.isfinite().all()


def assert_every_parameter_gets_a_gradient(network: nn.Module, outputs: Iterable[Tensor], without: str) -> None:
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()

    for name, parameter in network.named_parameters():
        if re.search(without, name):
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"{name} has a gradient of zeros"


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    network = case.build().train()

    assert_every_parameter_gets_a_gradient(network, [network(torch.randn(case.shape))], case.without_gradient)


@pytest.mark.parametrize("case", [case for case in NETWORKS if case.heads], ids=lambda case: case.name)
@pytest.mark.parametrize("training", [True, False])
def test_the_form_for_training_returns_every_head_of_the_same_weights(case: Case, training: bool) -> None:
    network = case.build(dense=False).train(training)
    network.load_state_dict(case.build().state_dict())
    outputs = network(torch.randn(case.shape))

    assert type(outputs) is dict
    assert {head: tuple(output.shape[:2]) for head, output in outputs.items()} == {
        head: (case.shape[0], channels) for head, channels in case.heads.items()
    }
    assert all(output.isfinite().all() for output in outputs.values())
    assert_every_parameter_gets_a_gradient(network, outputs.values(), case.without_gradient)


def test_scripted_and_loaded_equals_eager(case: Case, tmp_path: Path) -> None:
    network, x = case.build().eval(), torch.randn(case.shape)
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")
    loaded = torch.jit.load(tmp_path / "network.ts")

    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x))
        torch.testing.assert_close(loaded(x[:1]), network(x[:1]))


# The exporter that torch prefers needs onnxscript. This one is deprecated, traces, and so warns of every size check.
@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:Constant folding - Only steps=1 can be:UserWarning")
def test_onnx_equals_eager(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    network, x = case.build().eval(), torch.randn(case.shape)
    path = str(tmp_path / "network.onnx")
    torch.onnx.export(network, (x,), path, input_names=["image"], output_names=["pred"], dynamo=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    (output,) = session.run(["pred"], {"image": x.numpy()})

    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(output), network(x), rtol=1e-4, atol=1e-4)


def test_a_batch_equals_its_cases_in_eval(case: Case) -> None:
    network, x = case.build().eval(), torch.randn(case.shape)

    with torch.no_grad():
        torch.testing.assert_close(network(x), torch.cat([network(single) for single in x.split(1)]))


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_a_size_that_does_not_divide_names_the_one_that_does(case: Case, axis: int) -> None:
    network = case.build().eval()
    shape = list(case.shape)
    shape[axis] += 1
    if case.any_size:
        with torch.no_grad():
            assert network(torch.zeros(shape)).shape[2:] == tuple(shape[2:])
        return
    with pytest.raises(ValueError, match=rf"{shape[axis]} is not divisible by \d+; pad to \d+$") as error:
        network(torch.zeros(shape))

    fit = int(re.findall(r"\d+", str(error.value))[-1])
    assert fit > shape[axis]
    shape[axis] = fit
    with torch.no_grad():
        assert network(torch.zeros(shape)).shape[2:] == tuple(shape[2:])


def test_another_number_of_channels_raises(case: Case) -> None:
    batch, channels, *size = case.shape
    with pytest.raises(ValueError, match=rf"\(B, {channels}, x, y, z\)"):
        case.build()(torch.zeros(batch, channels + 1, *size))


@pytest.mark.gpu
def test_cuda_equals_cpu(case: Case) -> None:
    # in float32, TF32 convolutions would hide a difference
    network, x = case.build().eval().double(), torch.randn(case.shape, dtype=torch.float64)

    with torch.no_grad():
        on_cpu = network(x)
        on_cuda = network.cuda()(x.cuda())
    assert on_cuda.is_cuda
    torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-5, atol=1e-6)
