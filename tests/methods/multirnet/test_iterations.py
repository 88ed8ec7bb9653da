"""Test the iterative learning of MultiR-Net."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.methods.multirnet import MultiRNet

from .formulas import inputs_of, narrow


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


@pytest.mark.parametrize("change", [lambda p: p[:1], lambda p: torch.cat([p, p], 1), lambda p: p[..., :1]])
def test_previous_probabilities_of_another_shape_are_refused(change: Callable[[Tensor], Tensor]) -> None:
    image = torch.zeros(2, 1, 16, 16, 16)  # without the check broadcasting would take all of these

    with pytest.raises(ValueError, match=r"previous probabilities \[2, 1, 16, 16, 16\], found shape \["):
        narrow()(image, change(image))
