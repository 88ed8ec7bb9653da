from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from monai.networks.nets import AttentionUnet, DynUNet, SegResNet, UNet
from torch import nn

from common.engines.fine_tuning import FrozenEncoder
from common.rivals import Rival, SingleFormRival, dynunet

from ..methods.networks import NetworkTests, TwoFormsTests, Variant

# instance normalisation has no running statistics, so it normalises alike in both modes
pytestmark = pytest.mark.filterwarnings("ignore:ONNX export mode is set to TrainingMode.EVAL, but.*instance_norm")

UNET: dict[str, Any] = {"channels": (4, 8, 8), "strides": (2, (2, 2, 1)), "num_res_units": 1}


def unet(in_channels: int, out_channels: int) -> UNet:
    return UNet(3, in_channels, out_channels, **UNET)


def segresnet(in_channels: int, out_channels: int) -> SegResNet:
    return SegResNet(3, 8, in_channels, out_channels, blocks_down=(1, 1), blocks_up=(1,))


def supervised(in_channels: int, out_channels: int) -> DynUNet:
    return dynunet(in_channels, out_channels, (32, 32, 16), width=2)


class Built:
    """Build the network of MONAI with the numbers of channels that the common tests of a network ask for."""

    make: ClassVar[Callable[[int, int], nn.Module]]
    image = (2, 1, 16, 24, 8)
    options: ClassVar[dict[str, Any]] = {}
    out_channels = 2
    other: ClassVar[dict[str, Any]] = {"in_channels": 3, "out_channels": 4}
    other_out_channels = 4
    without_gradient = r"conv\.bias$"  # instance normalisation takes the mean of a channel away

    def build(self, in_channels: int = 1, out_channels: int = 2, **options: Any) -> nn.Module:
        return super().build(network=type(self).make(in_channels, out_channels), **options)  # type: ignore[misc]

    def inference_of(self, outputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return outputs["seg"]


class TestUNet(Built, TwoFormsTests):
    network = Rival
    make = staticmethod(unet)
    heads: ClassVar[dict[str, int]] = {"seg": 2}
    without_gradient = r"(unit\d|network\.model\.2\.0)\.conv\.bias$|\.1\.submodule\.[\w.]+conv\.bias$"


class TestSegResNet(Built, Variant, TwoFormsTests):
    network = Rival
    make = staticmethod(segresnet)
    heads: ClassVar[dict[str, int]] = {"seg": 2}


class TestDynUNet(Built, TwoFormsTests):
    network = Rival
    make = staticmethod(supervised)
    image = (2, 1, 16, 32, 16)
    heads: ClassVar[dict[str, int]] = {"seg": 2, "aux_1": 2}
    not_in_inference = r"network\.heads"


class TestSingleForm(Built, Variant, NetworkTests):
    network = SingleFormRival
    make = staticmethod(supervised)
    image = (2, 1, 16, 32, 16)


@pytest.mark.parametrize(
    ("activation", "logits_in_training", "training", "inference"),
    [
        ("softmax", False, lambda x: x.softmax(1), lambda x: x.softmax(1)),
        ("sigmoid", False, torch.sigmoid, torch.sigmoid),
        ("sigmoid", True, lambda x: x, torch.sigmoid),
        ("none", False, lambda x: x, lambda x: x),
    ],
)
@pytest.mark.parametrize("make", [unet, segresnet, supervised])
def test_each_form_has_its_activation(
    make: Callable, activation: str, logits_in_training: bool, training: Callable, inference: Callable
) -> None:
    network = make(1, 2).eval()
    options = {"activation": activation, "logits_in_training": logits_in_training}
    x = torch.randn(1, 1, 32, 32, 16)
    with torch.no_grad():
        logits = network(x)  # before the wrapper takes its modules over
        rival = Rival(network, dense=True, **options).eval()
        torch.testing.assert_close(rival(x), inference(logits))
        torch.testing.assert_close(rival.training_form()(x)["seg"], training(logits))


def test_heads_are_those_of_monai_interpolated_linearly() -> None:
    network, x = supervised(1, 2).train(), torch.randn(1, 1, 32, 32, 16)
    with torch.no_grad():
        seg = network(x)[:, 0]
        coarse = network.heads[0]
        rival = Rival(network, activation="none")
        outputs = rival(x)
    torch.testing.assert_close(outputs["seg"], seg)
    assert coarse.shape[2:] == (16, 16, 8)
    expected = nn.functional.interpolate(coarse, x.shape[2:], mode="trilinear", align_corners=False)
    torch.testing.assert_close(outputs["aux_1"], expected)


def test_inference_computes_no_head() -> None:
    rival = Rival(supervised(1, 2), dense=True)
    rival.network.heads[0].register_forward_hook(lambda *_: pytest.fail("computed"))
    rival(torch.randn(1, 1, 32, 32, 16))


@pytest.mark.parametrize("make", [unet, segresnet, supervised])
def test_each_block_is_saved_once(make: Callable) -> None:
    rival = Rival(make(1, 2))
    addresses = [value.data_ptr() for value in rival.state_dict().values()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("make", [unet, segresnet, supervised])
def test_a_frozen_encoder_leaves_the_decoder_to_train(make: Callable) -> None:
    rival = Rival(make(1, 2))
    FrozenEncoder(rival)
    rival(torch.randn(1, 1, 32, 32, 16))["seg"].square().sum().backward()
    trained = {name for name, p in rival.named_parameters() if p.grad is not None}
    frozen = {name for name, p in rival.named_parameters() if not p.requires_grad}
    encoder = tuple(f"{name}." for name in rival.encoder_modules)
    assert frozen == {name for name, _ in rival.named_parameters() if name.startswith(encoder)}
    assert trained and frozen


def test_the_encoder_of_a_unet_has_every_level_and_the_bottom() -> None:
    rival = Rival(unet(1, 2))
    seen: list[tuple[int, ...]] = []
    for name in rival.encoder_modules:
        rival.get_submodule(name).register_forward_hook(lambda *call: seen.append(tuple(call[2].shape[1:])))
    rival(torch.randn(1, 1, 16, 16, 8))
    assert seen == [(4, 8, 8, 4), (8, 4, 4, 4), (8, 4, 4, 4)]


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (lambda: nn.Conv3d(1, 2, 1), {}, "network: Conv3d, expected UNet, SegResNet or DynUNet"),
        (lambda: AttentionUnet(3, 1, 2, (2, 4), (2,)), {}, "network: AttentionUnet, expected UNet"),
        (lambda: UNet(2, 1, 2, (2, 4), (2,)), {}, "UNet of 2 dimensions, expected 3"),
        (lambda: SegResNet(2, 8), {}, "SegResNet of 2 dimensions, expected 3"),
        (lambda: unet(1, 1), {}, "softmax' of 1 output channel"),
        (lambda: segresnet(1, 1), {}, "softmax' of 1 output channel"),
        (lambda: unet(1, 2), {"activation": "relu"}, "activation='relu': expected one of 'softmax', 'sigmoid', 'none'"),
    ],
)
def test_other_networks_and_activations_are_refused(network: Callable, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rival(network(), **options)
