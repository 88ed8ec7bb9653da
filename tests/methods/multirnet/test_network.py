from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from common.methods.multirnet import MultiRNet

from ..networks import TwoFormsTests, Variant
from .formulas import narrow, trained


class TestMultiRNet(TwoFormsTests):
    network = MultiRNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 6, 8), "classifier_channels": (4, 6, 8), "kernel_size": 3}
    image = (2, 1, 16, 12, 8)
    out_channels = 1 + 3
    heads: ClassVar[dict[str, int]] = {"seg": 1, "class": 3}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": 4}
    other_out_channels = 1 + 4
    parameter_counts = (
        ({}, 48_689_576),
        ({"reverse_attention": "own"}, 48_689_576 + 434_416),
        ({"pass_statistics": "separate"}, 48_689_576),
        ({"task": "seg"}, 45_631_685),
    )
    wrong_options = (
        ({"reverse_attention": "on"}, "reverse_attention='on': expected one of 'shared', 'own', 'off'"),
        ({"fusion": "sum"}, "fusion='sum': expected one of 'logits', 'mean_sigmoid'"),
        ({"pass_statistics": "own"}, "pass_statistics='own': expected one of 'shared', 'separate'"),
        ({"task": "cls"}, "task='cls': expected one of 'both', 'seg'"),
        ({"kernel_size": 4}, "kernel_size=4: expected an odd number"),
        ({"iterations": -1}, "iterations=-1: expected 0, one pass, or more"),
        ({"channels": (8,)}, "channels=.*: expected two to 5 widths"),
        ({"channels": (2,) * 6}, "channels=.*: expected two to 5 widths"),
        ({"in_channels": 0}, "in_channels=0, out_channels=1: expected at least 1 of both"),
        ({"out_channels": 0}, "in_channels=1, out_channels=0: expected at least 1 of both"),
    )
    without_gradient = r"\.up\.conv\.bias"  # batch normalisation takes these biases away
    test_inference_form_follows_from_the_training_form = None  # by the passes of algorithm 1, see below


class TestOwnUpSamplingAndMeanOfSigmoids(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {
        **TestMultiRNet.options,
        "reverse_attention": "own",
        "fusion": "mean_sigmoid",
        "iterations": 0,
    }


class TestSeparateStatistics(Variant, TestMultiRNet):
    options: ClassVar[dict[str, Any]] = {**TestMultiRNet.options, "pass_statistics": "separate", "iterations": 1}

    def prepare(self, network: nn.Module) -> None:
        torch.manual_seed(0)  # two networks of equal statistics
        trained(network)


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


def test_segmentation_alone_equals_that_of_both_tasks() -> None:
    both, alone, image = narrow(), narrow(task="seg"), torch.rand(1, 1, 32, 16, 16)
    alone.load_state_dict({k: v for k, v in both.state_dict().items() if k.startswith("segmentation.")})

    with torch.no_grad():
        outputs = alone(image)
        assert outputs["seg"].equal(both(image)["seg"])
    assert list(outputs) == ["seg"]


def test_training_form_gives_maps_in_float32_under_autocast() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert narrow()(torch.rand(1, 1, 32, 16, 16))["seg"].dtype == torch.float32
