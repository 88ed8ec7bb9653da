from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from common.inferers import WindowInferer
from common.methods.omnet import Cascade, CascadeInferer, FuseTasksd, OMNet

FLOAT32: dict[str, Any] = {"precision": "float32"}
SCHEMES: dict[str, dict[str, Any]] = {
    "beside each other": {"roi_size": (8, 8, 8), "overlap": 0},
    "overlapping": {"roi_size": (16, 8, 8), "overlap": 0.5, "mode": "gaussian", "sw_batch_size": 3},
    "centres": {"roi_size": (16, 8, 8), "keep": (7, 4, 4), "sw_batch_size": 2},
    "the whole": {"roi_size": (-1, -1, -1)},
}


class Task(nn.Module):
    """Return logits by a rule at each voxel, and count the windows."""

    def __init__(self, classes: int, rule: Any) -> None:
        super().__init__()
        self.classes = classes
        self.rule = rule
        self.windows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.windows += len(x)
        classes = self.rule(x).long()
        return 5.0 * nn.functional.one_hot(classes, self.classes).movedim(-1, 1)


class ByRule(nn.Module):
    """Decide each voxel by the image: channel 0 holds coarse classes, channel 1 fine ones, channel 2 enhancement."""

    def __init__(self) -> None:
        super().__init__()
        rules = ((5, 0), (5, 1), (2, 2))
        self.nets = nn.ModuleDict({f"task {c}": Task(n, lambda x, c=c: x[:, c]) for n, c in rules})

    @property
    def windows(self) -> list[int]:
        return [net.windows for net in self.nets.values()]


def fuse(scores: Tensor, margin: int = 5) -> Tensor:
    return torch.stack([FuseTasksd("pred", margin=margin)({"pred": case})["pred"] for case in scores])


def scene() -> Tensor:
    """Return 36 windows of 8x8x8 with a coarse tumour of 2 voxels at the corner of one, and fine classes around."""
    image = torch.zeros(1, 3, 32, 24, 24)
    image[0, 0, 8:10, 8, 8] = 2
    image[0, 1] = 2
    image[0, 1, 8, 8, 8] = 3
    image[0, 2] = 1
    return image


def test_later_networks_compute_only_windows_with_a_finding() -> None:
    # the region is 3..14 along x and 3..13 along y and z: 2 x 2 x 2 windows meet it, one meets the core
    network, image = ByRule(), scene()
    found = CascadeInferer((8, 8, 8), 2, 0, **FLOAT32)(image, network)
    assert network.windows == [4 * 3 * 3, 8, 1]
    expected = torch.zeros(1, 1, 32, 24, 24)
    expected[..., 3:15, 3:14, 3:14] = 2
    expected[..., 8, 8, 8] = 3
    assert torch.equal(fuse(found).float(), expected)
    # elsewhere, class 0
    assert (found.split([5, 5, 2], 1)[1][:, 0, 16:] == 1).all() and (found[:, 6:10, 16:] == 0).all()
    for task in found.split([5, 5, 2], 1):
        torch.testing.assert_close(task.sum(1), torch.ones(1, 32, 24, 24))

    ungated = ByRule()
    everywhere = CascadeInferer((8, 8, 8), 2, 0, gated=False, **FLOAT32)(image, ungated)
    assert ungated.windows == [36, 36, 36]
    assert torch.equal(fuse(everywhere), fuse(found)) and not torch.equal(everywhere, found)


def test_core_outside_the_region_does_not_count() -> None:
    network, image = ByRule(), scene()
    image[0, 1] = 1
    image[0, 1, :, :14, :14] = 2
    image[0, 1, 3, 3, 13] = 1
    CascadeInferer((8, 8, 8), 1, 0, **FLOAT32)(image, network)
    assert network.windows == [36, 8, 1]


@pytest.mark.parametrize(("shift", "windows"), [(0, 1), (1, 2)])
def test_the_region_includes_the_margin(shift: int, windows: int) -> None:
    image = torch.zeros(1, 3, 16, 8, 8)
    image[0, 0, 2 + shift, 2, 2] = 1
    network = ByRule()
    CascadeInferer((8, 8, 8), 1, 0, **FLOAT32)(image, network)
    assert network.windows[1] == windows
    network = ByRule()
    CascadeInferer((8, 8, 8), 1, 0, margin=4, **FLOAT32)(image, network)
    assert network.windows[1] == 1


def test_without_a_tumour_the_result_is_empty() -> None:
    network, image = ByRule(), torch.zeros(1, 3, 32, 24, 24)
    image[:, 1:] = 1
    found = CascadeInferer((8, 8, 8), 4, 0, **FLOAT32)(image, network)
    assert network.windows == [36, 1, 1]
    assert (found[:, 5] == 1).all() and (found[:, 10] == 1).all()
    assert not fuse(found).any()


def test_no_network_computes_empty_windows() -> None:
    network, image = ByRule(), scene()
    image[0, 1:] = 0
    image[0, 1, 8, 8, 8] = 1
    found = CascadeInferer((8, 8, 8), 1, 0, empty=(0, 0), **FLOAT32)(image, network)
    assert network.windows == [1, 1, 1]
    for task in found.split([5, 5, 2], 1):
        torch.testing.assert_close(task.sum(1), torch.ones(1, 32, 24, 24))
        assert (task[:, 0, :8] == 1).all()


# Networks.


def trained(network: nn.Module) -> nn.Module:
    """Set statistics with which the classes change from voxel to voxel."""
    for m in network.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.05, 0.2)
    return network.eval().requires_grad_(False)


def case_with_a_tumour(cascade: nn.Module, inferer: WindowInferer) -> Tensor:
    """Return an image, after scaling the last layers so that all classes occur and a few voxels are coarse tumour."""
    image = torch.randn(1, 4, 32, 16, 16)
    tasks = list(cascade.nets.values())
    for net in tasks:
        logits = inferer(image, net)
        spread = logits.std((0, 2, 3, 4)) / 2
        net.head[-1].bias.copy_((net.head[-1].bias - logits.mean((0, 2, 3, 4))) / spread)
        net.head[-1].weight /= spread.reshape(-1, 1, 1, 1, 1)
    tumour = inferer(image, lambda x: tasks[0](x).softmax(1))[:, 1:4].sum(1).logit()
    tasks[0].head[-1].bias[1:4] -= tumour.flatten().kthvalue(tumour.numel() - 10).values
    return image


@pytest.mark.parametrize(
    "scheme", ["beside each other", *(pytest.param(name, marks=pytest.mark.slow) for name in [*SCHEMES][1:])]
)
@pytest.mark.parametrize("empty", [pytest.param(None, marks=pytest.mark.slow), (0, 0)])
def test_the_label_map_equals_that_without_gating(scheme: str, empty: Any) -> None:
    network = trained(Cascade(channels=(4, 8), dense=True))
    image = case_with_a_tumour(network, WindowInferer(**SCHEMES[scheme], **FLOAT32))
    if empty:
        image[..., 16:, :, 8:] = 0
    windows = dict.fromkeys(network.nets, 0)
    for task, net in network.nets.items():
        net.register_forward_pre_hook(lambda _, x, task=task: windows.update({task: windows[task] + len(x[0])}))
    fill = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    everywhere = WindowInferer(**SCHEMES[scheme], empty=empty, fill=fill, **FLOAT32)(image, network)
    for gated in (False, True):
        windows.update(dict.fromkeys(windows, 0))
        found = CascadeInferer(**SCHEMES[scheme], empty=empty, gated=gated, margin=1, **FLOAT32)(image, network)
        assert found.dtype == torch.float32 and found.shape == (1, 12, 32, 16, 16)
        torch.testing.assert_close(found[:, :5], everywhere[:, :5])
        if not gated:
            torch.testing.assert_close(found, everywhere)
        assert torch.equal(fuse(found, margin=1), fuse(everywhere, margin=1))
    assert fuse(everywhere, margin=1).unique().tolist() == [0, 1, 2, 3]
    first, second, third = windows.values()
    assert first >= second >= third >= 1
    assert first > second or scheme not in ("beside each other", "centres")


def test_each_case_of_a_batch_is_gated_on_its_own() -> None:
    network, image = ByRule(), torch.cat([scene(), torch.zeros_like(scene())])
    found = CascadeInferer((8, 8, 8), 3, 0, **FLOAT32)(image, network)
    assert network.windows == [72, 8, 1]
    assert torch.equal(fuse(found)[:1], fuse(CascadeInferer((8, 8, 8), 3, 0, **FLOAT32)(image[:1], ByRule())))
    assert not fuse(found)[1].any()


@pytest.mark.slow
def test_omnet_equals_a_cascade_with_a_shared_backbone() -> None:
    one_pass = trained(OMNet(attention=None, channels=(4, 8), dense=True))
    cascade = Cascade(channels=(4, 8), dense=True)
    for net, head in zip(cascade.nets.values(), one_pass.heads.values()):
        net.backbone, net.head = one_pass.backbone, head
    options = {"roi_size": (16, 8, 8), "keep": (8, 4, 4), **FLOAT32}
    image = case_with_a_tumour(cascade.eval(), WindowInferer(**options))
    expected = WindowInferer(**options)(image, one_pass)
    torch.testing.assert_close(CascadeInferer(**options, gated=False)(image, cascade), expected)
    assert torch.equal(fuse(CascadeInferer(**options)(image, cascade)), fuse(expected))
    assert fuse(expected).any()


def test_a_metatensor_keeps_its_affine() -> None:
    affine = torch.diag(torch.tensor([2.0, 1, 3, 1], dtype=torch.float64))
    found = CascadeInferer((8, 8, 8), **FLOAT32)(MetaTensor(scene(), affine=affine), ByRule())
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine)


def test_another_network_is_refused() -> None:
    with pytest.raises(
        ValueError, match="OMNet is not a cascade: found 0 networks in its attribute 'nets'; expected 3"
    ):
        CascadeInferer((8, 8, 8))(torch.zeros(1, 4, 8, 8, 8), OMNet(channels=(4, 8)))
