from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.methods.omnet import OMNet
from common.methods.omnet.attention import CrossTaskGuidedAttention, channel_importance

from .formulas import POSITIVE, TASKS, naive_cga, narrow, trained


def cga(task: str = "tumour", spatial_weights: bool = True) -> CrossTaskGuidedAttention:
    num_classes = 5 if task == "tumour" else 2
    return trained(nn.Sequential(CrossTaskGuidedAttention(6, num_classes, POSITIVE[task], 5, spatial_weights)))[0]


def features_and_guide(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 6, 6, 5, 4).relu(), 2 * torch.randn(batch, 5, 6, 5, 4)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("task", ["tumour", "enhancing"])
def test_cga_and_its_gradients_follow_the_equations(task: str, spatial: bool) -> None:
    module = cga(task, spatial)
    features, guide = features_and_guide()
    features.requires_grad_()

    def output_and_gradients(output: Tensor) -> list[Tensor]:
        inputs = [features, *module.parameters()]
        return [
            output,
            *torch.autograd.grad((output * torch.arange(output.numel()).view_as(output).cos()).sum(), inputs),
        ]

    torch.testing.assert_close(
        output_and_gradients(module(features, guide)),
        output_and_gradients(naive_cga(features, guide, module, task, spatial)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_channel_importance_is_a_share() -> None:
    features, p_t = torch.randn(2, 6, 50).relu(), torch.rand(2, 1, 50)
    p = torch.cat([p_t, 1 - p_t], 1)
    m = channel_importance(features, p)

    assert m.shape == (2, 2, 6)
    assert m.min() >= 0
    torch.testing.assert_close(m.sum(2), torch.ones(2, 2))
    torch.testing.assert_close(channel_importance(7 * features, p), m)
    order = torch.randperm(6)
    torch.testing.assert_close(channel_importance(features[:, order], p), m[:, :, order])
    mean = features.mean(2)
    uniform = channel_importance(features, torch.full_like(p, 0.3))
    torch.testing.assert_close(uniform, (mean / mean.sum(1, keepdim=True))[:, None].expand(2, 2, 6))


@pytest.mark.parametrize("task", ["tumour", "enhancing"])
def test_guide_maps_sum_to_1(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = []
    monkeypatch.setattr(
        "common.methods.omnet.attention.channel_importance", lambda f, p: maps.append(p) or channel_importance(f, p)
    )
    features, guide = features_and_guide()
    cga(task)(features, 5 * guide)

    (p,) = maps
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(1), torch.ones(2, 120), rtol=0, atol=1e-6)
    certain = torch.full_like(guide, -200.0)
    certain[:, 3] = 200  # enhancing tumour lies in both positive sets
    cga(task)(features, certain)
    assert torch.equal(maps[1], torch.tensor([1.0, 0.0]).view(1, 2, 1).expand(2, 2, 120))


def test_certain_guide_leaves_one_pathway() -> None:
    module, (features, guide) = cga(), features_and_guide()
    module.merge = nn.Identity()
    guide[:, [0, 4]] = -200
    m = features.sum((2, 3, 4), keepdim=True) / features.sum((1, 2, 3, 4), keepdim=True)
    s_t = nn.functional.conv3d(m * features, module.scores.weight[:5], module.scores.bias[:5])

    torch.testing.assert_close(module(features, guide), s_t)


def test_equal_pathways_make_the_spatial_weights_irrelevant() -> None:
    module, (features, guide) = cga(), features_and_guide()
    module.merge = nn.Identity()
    with torch.no_grad():
        module.scores.weight[5:], module.scores.bias[5:] = module.scores.weight[:5], module.scores.bias[:5]
        features = features[:, :, :1, :1, :1].expand_as(features)  # so that m_t = m_n
        m = features[:, :, :1, :1, :1] / features[:, :, :1, :1, :1].sum(1, keepdim=True)
        s_t = nn.functional.conv3d(m * features, module.scores.weight[:5], module.scores.bias[:5])

        torch.testing.assert_close(module(features, guide), s_t)


def test_features_of_zeros_stay_finite() -> None:
    module, (features, guide) = cga(), features_and_guide()
    features = torch.zeros_like(features, requires_grad=True)
    output = module(features, guide)
    output.sum().backward()

    assert output.isfinite().all()
    assert features.grad.isfinite().all()


def test_recalibrated_features_are_not_formed() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            output = func(*args, **(kwargs or {}))
            if output.data_ptr() != features.data_ptr():
                self.numel = max(self.numel, output.numel())
            return output

    module = CrossTaskGuidedAttention(32, 5, (1, 2, 3), 5, True)
    features, guide = torch.rand(1, 32, 16, 16, 8), torch.randn(1, 5, 16, 16, 8)
    with torch.no_grad(), Largest() as largest:
        module(features, guide)

    assert largest.numel == 2 * 5 * 16 * 16 * 8  # S_t and S_n


def windowed(network: OMNet, image: Tensor, window: tuple[int, int, int]) -> dict[str, Tensor]:
    """Run the heads on one window after the other."""
    features = network.backbone(image)
    coarse = network.heads["coarse"](features)
    tumour, enhancing = torch.zeros_like(coarse), torch.zeros_like(coarse[:, :2])
    for start in itertools.product(*(range(0, n, w) for n, w in zip(image.shape[2:], window, strict=True))):
        part = (..., *(slice(i, i + w) for i, w in zip(start, window, strict=True)))
        tumour[part] = network.heads["tumour"](features[part], coarse[part])
        enhancing[part] = network.heads["enhancing"](features[part], tumour[part])
    return {"coarse": coarse, "tumour": tumour, "enhancing": enhancing}


@pytest.mark.parametrize("window", [(8, 8, 4), (8, 4, 8), (5, 7, 3), (32, 32, 16)])
def test_every_window_has_its_own_statistics(window: tuple[int, int, int]) -> None:
    network, image = narrow(statistics_window=window), torch.randn(2, 4, 16, 12, 8)

    with torch.no_grad():
        torch.testing.assert_close(network(image), windowed(network, image, window), rtol=1e-4, atol=1e-5)


def test_a_single_window_equals_the_whole_tile() -> None:
    network, other = narrow(), narrow(statistics_window=(16, 12, 8))
    other.load_state_dict(network.state_dict())
    image, larger = torch.randn(2, 4, 16, 12, 8), torch.randn(1, 4, 32, 12, 8)

    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image))
        assert torch.equal(other(larger)["coarse"], network(larger)["coarse"])
        for task in TASKS[1:]:
            assert not torch.allclose(other(larger)[task], network(larger)[task], atol=1e-3)


def test_statistics_in_float32_also_under_autocast() -> None:
    features, p = torch.randn(2, 6, 999).relu(), torch.rand(2, 2, 999)
    with torch.autocast("cpu", torch.bfloat16):
        m = channel_importance(features, p)

    assert m.dtype == torch.float32
    assert torch.equal(m, channel_importance(features, p))
