"""Test the classification subnet of MultiR-Net."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.multirnet.network import ClassifierModule

from ..naive import naive_norm
from .formulas import inputs_of, narrow, outputs_of, trained


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
