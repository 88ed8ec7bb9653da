"""Test Grad-CAM by windows, for a network with known activations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import InputError, UsageError
from common.inferers import ClassActivationInferer, class_to_explain
from common.layers import MeanEnsemble

OPTIONS: dict[str, Any] = {"roi_size": (4, 4, 4), "num_classes": 2, "overlap": 0, "precision": "float32"}


class Known(nn.Module):
    """Return class logits that are fixed weights times the sums of the image's two channels over the window."""

    def __init__(self, passes: int = 1) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv3d(2, 2, 1, bias=False), nn.Identity())
        self.unused = nn.Identity()
        self.head = nn.Conv3d(2, 1, 1)
        self.logits = nn.Linear(2, 2, bias=False)
        self.passes = passes
        with torch.no_grad():
            self.encoder[0].weight.copy_(torch.eye(2)[:, :, None, None, None])
            self.logits.weight.copy_(torch.tensor([[3.0, -1.0], [-2.0, 1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.passes):
            features = self.encoder(x * (i + 1))
            features += 0.0  # in place, as networks do
            segmentation = self.head(features)
        logits = self.logits(features.sum((2, 3, 4)))[:, :, None, None, None]
        return torch.cat([segmentation, logits.expand(-1, -1, *x.shape[2:])], 1)


def cam(x: Tensor, target: int) -> Tensor:
    """Return the map by definition: the gradient of each feature is its weight, at every voxel."""
    first, second = ((3.0, -1.0), (-2.0, 1.0))[target]
    return (first * x[:, :1] + second * x[:, 1:]).clamp(min=0)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("sw_batch_size", [1, 4])
@pytest.mark.parametrize("layer", ["encoder.0", "encoder"])
@pytest.mark.parametrize("frozen", [True, False])
def test_map_of_a_class_equals_the_definition(target: int, sw_batch_size: int, layer: str, frozen: bool) -> None:
    network = Known().eval().requires_grad_(not frozen)
    image = torch.rand(2, 2, 12, 4, 8)
    image[1] *= 5  # each case is scaled by its own largest value
    inferer = ClassActivationInferer(target_layers=layer, target_class=target, sw_batch_size=sw_batch_size, **OPTIONS)
    with torch.no_grad():
        found = inferer(image, network)
    expected = cam(image, target)
    expected /= expected.amax((1, 2, 3, 4), keepdim=True)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 1, 12, 4, 8) and not found.requires_grad
    assert found.amax((1, 2, 3, 4)).tolist() == [1, 1]


@pytest.mark.parametrize("sw_batch_size", [1, 2])
def test_each_window_explains_its_most_probable_class(sw_batch_size: int) -> None:
    """The windows have different classes; a window with little evidence stays darker than one with much."""
    image = torch.rand(1, 2, 8, 4, 4) * 0.01
    image[0, 0, :4] += 1
    image[0, 1, 4:] += 2
    inferer = ClassActivationInferer(target_layers="encoder", sw_batch_size=sw_batch_size, **OPTIONS)
    found = inferer(image, Known().eval())
    expected = torch.cat([cam(image[:, :, :4], 0), cam(image[:, :, 4:], 1)], 2)
    torch.testing.assert_close(found, expected / expected.max())
    assert found[0, 0, :4].max() > 0.9 * 3 / 3.1 and 0.6 < found[0, 0, 4:].max() < 0.7


def test_overlapping_windows_are_averaged() -> None:
    image = torch.rand(1, 2, 6, 4, 4)
    inferer = ClassActivationInferer(target_layers="encoder", target_class=0, **{**OPTIONS, "overlap": 0.5})
    expected = cam(image, 0)  # the same in all windows, so also on average
    torch.testing.assert_close(inferer(image, Known()), expected / expected.max())


def test_a_coarse_layer_is_interpolated() -> None:
    class Pooled(Known):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(self.encoder, nn.AvgPool3d(2))

        def forward(self, x: Tensor) -> Tensor:
            logits = self.logits(self.encoder(x).sum((2, 3, 4)))[:, :, None, None, None]
            return logits.expand(-1, -1, *x.shape[2:])

    image = torch.rand(1, 2, 4, 4, 4)
    found = ClassActivationInferer(target_layers="encoder", target_class=0, **OPTIONS)(image, Pooled())
    coarse = cam(F.avg_pool3d(image, 2), 0)
    expected = F.interpolate(coarse, size=(4, 4, 4), mode="trilinear", align_corners=False)
    torch.testing.assert_close(found, expected / expected.max())


def test_the_last_use_of_a_layer_counts() -> None:
    """Only the third of three passes enters the class; its activations and gradient belong together."""
    network = Known(passes=3).eval()
    image = torch.rand(1, 2, 4, 4, 4)
    inferer = ClassActivationInferer(target_layers="encoder", target_class=0, **OPTIONS)
    expected = cam(image, 0)
    torch.testing.assert_close(inferer(image, network), expected / expected.max())


@pytest.mark.parametrize("sw_batch_size", [1, 2])
@pytest.mark.parametrize("target", [0, None])
def test_an_ensemble_averages_the_maps_of_one_class(target: int | None, sw_batch_size: int) -> None:
    """Where the second network prefers another class, both explain that of the ensemble."""
    first, second = Known().eval(), Known().eval()
    with torch.no_grad():
        first.logits.weight.copy_(torch.tensor([[9.0, -3.0], [-6.0, 3.0]]))
        second.logits.weight.copy_(torch.tensor([[1.0, 0.0], [1.1, 0.0]]))
    image = torch.rand(1, 2, 8, 4, 4) * 0.01
    image[0, 0, :4] += 0.1  # class 0 by the first network and the mean, class 1 by the second
    image[0, 1, 4:] += 2  # class 1 by all
    options = {**OPTIONS, "sw_batch_size": sw_batch_size, "target_layers": "encoder", "target_class": target}
    network = MeanEnsemble([first, second], [2])
    found = ClassActivationInferer(**options)(image, network)
    maps = [3 * cam(image, 0), image[:, :1]]
    if target is None:
        others = [3 * cam(image, 1), 1.1 * image[:, :1]]
        maps = [torch.cat([a[:, :, :4], b[:, :, 4:]], 2) for a, b in zip(maps, others)]
    expected = sum(maps) / 2
    torch.testing.assert_close(found, expected / expected.max())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())


def test_a_list_of_layers_stands_for_its_last() -> None:
    class Steps(nn.ModuleList):
        def forward(self, x: Tensor) -> Tensor:
            return self[1](2 * self[0](x))

    network = Known().eval()
    network.encoder = Steps(network.encoder)
    options = {**OPTIONS, "target_class": 0}
    image = torch.rand(1, 2, 4, 4, 4)
    listed, last = (ClassActivationInferer(target_layers=name, **options) for name in ("encoder", "encoder.1"))
    assert torch.equal(listed(image, network), last(image, network))


def test_no_hook_or_gradient_remains_on_the_network() -> None:
    network = Known().train()
    network.head.weight.grad = torch.ones_like(network.head.weight)
    inferer = ClassActivationInferer(target_layers="encoder", **OPTIONS)
    image = torch.rand(1, 2, 12, 4, 4)
    first = inferer(image, network)
    assert torch.equal(first, inferer(image, network))
    for module in network.modules():
        assert not module._forward_hooks and not module._backward_hooks and not module._forward_pre_hooks
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert [p.grad is None for p in network.parameters()] == [True, False, True, True]
    assert (network.head.weight.grad == 1).all()


def test_no_hook_remains_after_an_error() -> None:
    network = Known()

    def fail(*_: Any) -> None:
        raise MemoryError

    network.head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        ClassActivationInferer(target_layers="encoder", **OPTIONS)(torch.rand(1, 2, 4, 4, 4), network)
    assert not network.encoder._forward_hooks


def test_without_evidence_the_map_is_zero() -> None:
    image = -torch.rand(1, 2, 4, 4, 4)
    image[:, 1] = 0
    found = ClassActivationInferer(target_layers="encoder", target_class=0, **OPTIONS)(image, Known())
    assert (found == 0).all()


def test_bfloat16_is_close_to_float32() -> None:
    image = torch.rand(1, 2, 8, 4, 4)
    options = {**OPTIONS, "target_layers": "encoder", "target_class": 0}
    with torch.no_grad():
        found = ClassActivationInferer(**{**options, "precision": "bfloat16"})(image, Known().eval())
    expected = cam(image, 0) / cam(image, 0).max()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    assert not torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "decoder",
            r"target_layers decoder: Known has no such layer; give one of encoder, encoder.0, encoder.1, unused, head",
        ),
        ("unused", "target_layers unused: the network does not use this layer"),
        ("logits", r"target_layers logits: its output is not a map \(B, C, x, y, z\)"),
        ("head", "target_layers head: the class does not depend on this layer"),
    ],
)
def test_unsuitable_layers_are_refused(layer: str, message: str) -> None:
    for network in (Known(), Known().requires_grad_(False)):
        with pytest.raises(InputError, match=message):
            ClassActivationInferer(target_layers=layer, **OPTIONS)(torch.rand(1, 2, 4, 4, 4), network)


@pytest.mark.parametrize("target", [-1, 2])
def test_a_class_out_of_range_is_refused(target: int) -> None:
    with pytest.raises(InputError, match=f"target_class {target}: expected 0 to 1"):
        ClassActivationInferer(target_layers="encoder", target_class=target, **OPTIONS)


def test_a_class_is_explained_by_its_name() -> None:
    assert [class_to_explain(["a", "b"], name) for name in ("a", "b", None)] == [0, 1, None]


def test_an_unknown_class_to_explain_names_the_classes() -> None:
    with pytest.raises(UsageError, match=r"^--explain c: expected a class of the network, a, b, or null for"):
        class_to_explain(["a", "b"], "c")
