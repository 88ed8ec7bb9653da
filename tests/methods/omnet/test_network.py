from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.methods.omnet import Cascade, OMNet, SingleTaskNet
from common.methods.omnet.network import Backbone, CrossTaskGuidedAttention, ResidualBlock, channel_importance

from ..networks import NetworkTests, TwoFormsTests

CONVOLUTIONS = (nn.Conv3d, nn.ConvTranspose3d)
TASKS = ("coarse", "tumour", "enhancing")
POSITIVE = {"tumour": (1, 2, 3), "enhancing": (1, 3)}


def narrow(**options: object) -> OMNet:
    """In eval mode, with weights and statistics as after training."""
    return trained(OMNet(**{"channels": (4, 6, 8), **options})).eval()


def trained(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.3)
        elif isinstance(m, CrossTaskGuidedAttention):
            nn.init.normal_(m.scores.weight, std=4)  # as large as the 1 / channels of m is small
            nn.init.normal_(m.scores.bias)
    return network


def cga(task: str = "tumour", spatial_weights: bool = True) -> CrossTaskGuidedAttention:
    num_classes = 5 if task == "tumour" else 2
    return trained(nn.Sequential(CrossTaskGuidedAttention(6, num_classes, POSITIVE[task], 5, spatial_weights)))[0]


def features_and_guide(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 6, 6, 5, 4).relu(), 2 * torch.randn(batch, 5, 6, 5, 4)


class TestOMNet(TwoFormsTests):
    network = OMNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8)}
    image = (2, 4, 16, 12, 8)
    out_channels = 5 + 5 + 2
    heads: ClassVar[dict[str, int]] = {"coarse": 5, "tumour": 5, "enhancing": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": (6, 4, 3)}
    other_out_channels = 6 + 4 + 3


class TestStatisticsOfWindows(TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "statistics_window": (8, 8, 8)}


class TestPlainHeads(TestOMNet):
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8), "attention": None}


class TestSqueezeAndExcitation(TestOMNet):
    # 64 channels make 8 hidden units; of few, all may be dead at the start, and nothing before them has a gradient
    options: ClassVar[dict[str, Any]] = {"channels": (64, 4), "attention": "se"}


class TestCascade(TestOMNet):
    network = Cascade


class TestSingleTaskNet(NetworkTests):
    network = SingleTaskNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8)}
    image = (2, 4, 16, 12, 8)
    out_channels = 5
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "num_classes": 3}
    other_out_channels = 3


# Parameter counts of the released network description.


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count(module: nn.Module, kind: type | tuple[type, ...], name: str) -> int:
    return sum(getattr(m, name).numel() for m in module.modules() if isinstance(m, kind))


@pytest.mark.parametrize(
    ("network", "weights", "biases", "norms", "total", "published"),
    [
        pytest.param(SingleTaskNet, 13_812_256, 3_749, 7_488, 13_823_493, 13.813, id="MC1"),
        pytest.param(lambda: SingleTaskNet(num_classes=2), 13_812_160, 3_746, 7_488, 13_823_394, None, id="2 classes"),
        pytest.param(lambda: OMNet(attention=None), 13_867_776, 3_820, 7_616, 13_879_212, 13.869, id="OM-Net"),
        pytest.param(lambda: OMNet(attention="se"), 13_867_776, 3_820, 7_616, 13_880_088, 13.870, id="OM-Net + SE"),
        pytest.param(OMNet, 13_812_733, 3_770, 7_488, 13_823_991, 13.814, id="OM-Net + CGA"),
        pytest.param(lambda: OMNet(attention="cga-"), 13_812_733, 3_770, 7_488, 13_823_991, 13.814, id="CGA-"),
    ],
)
def test_parameters(network: type, weights: int, biases: int, norms: int, total: int, published: float | None) -> None:
    built = network()

    assert count(built, CONVOLUTIONS, "weight") == weights
    assert count(built, CONVOLUTIONS, "bias") == biases
    assert count(built, nn.BatchNorm3d, "weight") + count(built, nn.BatchNorm3d, "bias") == norms
    assert count(built, nn.Linear, "weight") + count(built, nn.Linear, "bias") == total - weights - biases - norms
    assert parameters(built) == total
    if published is not None:  # table I, in millions
        assert total == pytest.approx(1e6 * published, rel=1e-3)


def test_parameters_of_the_cascade() -> None:
    one, two, three = (parameters(SingleTaskNet(num_classes=classes)) for classes in (5, 5, 2))

    assert one + two == 27_646_986 == pytest.approx(27.626e6, rel=1e-3)
    assert one + two + three == 41_470_380 == pytest.approx(41.439e6, rel=1e-3)
    assert parameters(Cascade()) == 41_470_380


def test_backbone_parameters_layer_by_layer() -> None:
    backbone = OMNet().backbone
    weights = [m.weight.numel() for m in backbone.modules() if isinstance(m, CONVOLUTIONS)]

    assert weights == [
        *[3_456, 27_648, 27_648, 27_648, 27_648],
        *[55_296, 110_592, 110_592, 110_592, 110_592],
        *[221_184, 442_368, 442_368, 442_368, 442_368],
        *[884_736, 1_769_472, 1_769_472, 1_769_472, 1_769_472],
        *[262_144, 442_368, 442_368, 442_368, 442_368, 442_368],
        *[65_536, 110_592, 110_592, 110_592, 110_592, 110_592],
        *[16_384, 27_648, 27_648, 27_648, 27_648],
    ]
    assert len(weights) == 37
    assert sum(weights) == 13_784_448
    assert count(backbone, CONVOLUTIONS, "bias") == 3_712
    assert count(backbone, nn.BatchNorm3d, "weight") + count(backbone, nn.BatchNorm3d, "bias") == 7_424


def test_head_parameters() -> None:
    heads = {attention: OMNet(attention=attention).heads for attention in ("cga", None, "se")}

    assert [parameters(heads["cga"][task]) for task in TASKS] == [27_648 + 160 + 37 + 64, 345 + 15, 132 + 6]
    assert [parameters(heads[None][task]) for task in TASKS] == [27_909, 27_909, 27_810]
    assert [parameters(heads["se"][task][0]) for task in TASKS] == [292, 292, 292]


@pytest.mark.parametrize(("attention", "layers"), [("cga", 38), (None, 40), ("se", 40)])
def test_batch_norms(attention: str | None, layers: int) -> None:
    def norms(network: nn.Module) -> list[nn.BatchNorm3d]:
        return [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]

    assert {(m.momentum, m.eps) for m in norms(OMNet(attention=attention))} == {(1e-3, 1e-5)}
    assert len(norms(OMNet(attention=attention))) == layers
    assert {m.momentum for m in norms(narrow(attention=attention, bn_momentum=0.1, channels=(8, 6)))} == {0.1}


@pytest.mark.parametrize("network", [OMNet, SingleTaskNet])
def test_initialisation(network: type) -> None:
    first, *others = [m for m in network().modules() if isinstance(m, CONVOLUTIONS)]

    assert not first.bias.any()
    assert all((m.bias == 0.1).all() for m in others)
    for m in (first, *others):
        if m.weight.numel() > 3_000:
            fan_in = m.weight[0].numel()
            assert m.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
            assert m.weight.mean().item() == pytest.approx(0, abs=0.05 * m.weight.std().item())


def test_paper_network_on_a_patch_of_the_paper() -> None:
    network, shapes = OMNet().eval(), {}
    network.backbone.dropout.register_forward_hook(lambda *args: shapes.update(bottom=args[2].shape))
    image = torch.randn(1, 4, 32, 32, 16)

    with torch.no_grad():
        features, outputs = network.backbone(image), network(image)

    assert shapes["bottom"] == (1, 256, 4, 4, 2)
    assert features.shape == (1, 32, 32, 32, 16)
    assert features.min() == 0
    assert {task: tuple(output.shape[1:]) for task, output in outputs.items()} == {
        "coarse": (5, 32, 32, 16),
        "tumour": (5, 32, 32, 16),
        "enhancing": (2, 32, 32, 16),
    }


# The blocks and the whole network against the figures and equations of the paper.


def naive_convolution(x: Tensor, conv: nn.Module) -> Tensor:
    """Sum over the kernel's offsets of the shifted, zero-padded input times the weight, plus the bias."""
    size, (x_size, y_size, z_size) = conv.weight.shape[2], x.shape[2:]
    padded = nn.functional.pad(x, 6 * [size // 2])
    total = conv.bias.view(1, -1, 1, 1, 1).repeat(x.shape[0], 1, *x.shape[2:])
    for i, j, k in itertools.product(range(size), repeat=3):
        shifted = padded[:, :, i : i + x_size, j : j + y_size, k : k + z_size]
        total = total + torch.einsum("oc,bcxyz->boxyz", conv.weight[:, :, i, j, k], shifted)
    return total


def naive_double(x: Tensor, up: nn.Module) -> Tensor:
    larger = torch.zeros(x.shape[0], up.weight.shape[1], *(2 * size for size in x.shape[2:]))
    for i, j, k in itertools.product((0, 1), repeat=3):
        larger[:, :, i::2, j::2, k::2] = torch.einsum("co,bcxyz->boxyz", up.weight[:, :, i, j, k], x)
    return larger + up.bias.view(1, -1, 1, 1, 1)


def naive_norm(x: Tensor, norm: nn.Module) -> Tensor:
    mean, var, weight, bias = (
        v.view(1, -1, 1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5) ** 0.5 * weight + bias


def naive_unit(x: Tensor, unit: nn.Module) -> Tensor:
    return naive_norm(naive_convolution(x, unit.conv), unit.adn.N).clamp(min=0)


def naive_residual(x: Tensor, block: ResidualBlock) -> Tensor:
    first, second, third = block.body
    y = naive_unit(naive_unit(x, first), second)
    return (x + naive_norm(naive_convolution(y, third.conv), third.adn.N)).clamp(min=0)


def naive_backbone(x: Tensor, backbone: Backbone) -> Tensor:
    skips = []
    for i, (first, residual, last) in enumerate(backbone.encoder):
        if i > 0:
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).amax((5, 6, 7))
        x = naive_unit(naive_residual(naive_unit(x, first), residual), last)
        skips.append(x)
    skips.pop()
    for block in backbone.decoder:
        x = naive_norm(naive_double(x, block.up.conv), block.up.adn.N).clamp(min=0) + skips.pop()
        first, residual, *last = block.refine
        x = naive_residual(naive_unit(x, first), residual)
        for unit in last:
            x = naive_unit(x, unit)
    return x


def naive_head(x: Tensor, head: nn.Sequential) -> Tensor:
    *squeeze, unit, conv = head
    for block in squeeze:
        hidden = (x.mean((2, 3, 4)) @ block.fc[0].weight.T + block.fc[0].bias).clamp(min=0)
        x = x / (1 + torch.exp(-hidden @ block.fc[2].weight.T - block.fc[2].bias))[:, :, None, None, None]
    return naive_convolution(naive_unit(x, unit), conv)


def naive_cga(features: Tensor, guide: Tensor, module: CrossTaskGuidedAttention, task: str, spatial: bool) -> Tensor:
    e = torch.exp(guide.detach())
    p = e / e.sum(1, keepdim=True)
    p_t = sum(p[:, c] for c in range(5) if c in POSITIVE[task])[:, None]  # (3)
    p_n = sum(p[:, c] for c in range(5) if c not in POSITIVE[task])[:, None]  # (4)
    num_classes = module.merge.weight.shape[0]
    merged = 0
    for p_k, rows in ((p_t, slice(None, num_classes)), (p_n, slice(num_classes, None))):
        v = (features * p_k).sum((2, 3, 4), keepdim=True)
        m = v / v.sum(1, keepdim=True)  # (5), (6)
        u = m * features  # (7), (8)
        s = torch.einsum("oc,bcxyz->boxyz", module.scores.weight[rows, :, 0, 0, 0], u)
        s = s + module.scores.bias[rows].view(1, -1, 1, 1, 1)
        merged = merged + (p_k * s if spatial else s)  # (9)
    return naive_convolution(merged, module.merge)


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


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_network_follows_the_figures(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 5, 6))
    image = torch.randn(2, 4, 12, 8, 4)

    with torch.no_grad():
        outputs = network(image)
        features = naive_backbone(image, network.backbone)
        coarse = naive_head(features, network.heads["coarse"])
        if attention in ("cga", "cga-"):
            spatial = attention == "cga"
            tumour = naive_cga(features, coarse, network.heads["tumour"], "tumour", spatial)
            enhancing = naive_cga(features, tumour, network.heads["enhancing"], "enhancing", spatial)
        else:
            tumour, enhancing = (naive_head(features, network.heads[task]) for task in TASKS[1:])

    expected = dict(zip(TASKS, (coarse, tumour, enhancing), strict=True))
    assert all(output.std() > 1 for output in outputs.values())
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)


def test_channel_importance() -> None:
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
def test_the_maps_of_a_guide_sum_to_1(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = []
    monkeypatch.setattr(
        "common.methods.omnet.network.channel_importance", lambda f, p: maps.append(p) or channel_importance(f, p)
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


def test_a_certain_guide_leaves_one_pathway() -> None:
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


def test_features_of_zeros() -> None:
    module, (features, guide) = cga(), features_and_guide()
    features = torch.zeros_like(features, requires_grad=True)
    output = module(features, guide)
    output.sum().backward()

    assert output.isfinite().all()
    assert features.grad.isfinite().all()


def test_recalibrated_features_are_never_formed() -> None:
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


def test_dropout_is_of_single_elements_at_the_bottom() -> None:
    network, bottom = narrow(dropout=0.5), []
    assert [m for m in network.modules() if isinstance(m, nn.Dropout)] == [network.backbone.dropout]
    network.backbone.dropout.train().register_forward_hook(lambda *args: bottom.extend([args[1][0], args[2]]))
    network(torch.randn(2, 4, 16, 16, 16))

    before, after = bottom
    assert before.shape == (2, 8, 4, 4, 4)
    dropped = (before > 0) & (after == 0)
    assert 0.4 < dropped.sum() / (before > 0).sum() < 0.6
    assert torch.equal(after[~dropped], 2 * before[~dropped])


# Statistics of windows.


def windowed(network: OMNet, image: Tensor, window: tuple[int, int, int]) -> dict[str, Tensor]:
    """The heads on one window after the other."""
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


def test_one_window_is_the_whole_tile() -> None:
    network, other = narrow(), narrow(statistics_window=(16, 12, 8))
    other.load_state_dict(network.state_dict())
    image, larger = torch.randn(2, 4, 16, 12, 8), torch.randn(1, 4, 32, 12, 8)

    with torch.no_grad():
        torch.testing.assert_close(other(image), network(image))
        assert torch.equal(other(larger)["coarse"], network(larger)["coarse"])
        for task in TASKS[1:]:
            assert not torch.allclose(other(larger)[task], network(larger)[task], atol=1e-3)


# Tasks, patches, and the dense form.


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_tasks_are_trained_independently(attention: str | None) -> None:
    for task in TASKS:
        network = narrow(attention=attention, channels=(8, 6)).train()
        output = network(torch.randn(2, 4, 8, 8, 8))[task]
        (output * torch.randn_like(output)).sum().backward()

        reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert {name.split(".")[1] for name in reached if name.startswith("heads.")} == {task}
        assert {name for name, _ in network.named_parameters() if name.startswith("backbone.")} <= reached


def test_one_pass_equals_three_networks_of_the_same_weights() -> None:
    network, image = narrow(attention=None), torch.randn(2, 4, 8, 8, 8)
    state = network.state_dict()

    with torch.no_grad():
        outputs = network(image)
        for task, classes in zip(TASKS, (5, 5, 2), strict=True):
            single = SingleTaskNet(num_classes=classes, channels=(4, 6, 8)).eval()
            single.load_state_dict(
                {
                    key.replace(f"heads.{task}", "head"): value
                    for key, value in state.items()
                    if key.startswith(("backbone.", f"heads.{task}."))
                }
            )
            torch.testing.assert_close(single(image), outputs[task], rtol=0, atol=1e-6)


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_dense_form_is_the_softmax_of_every_task(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 6))
    dense = OMNet(attention=attention, channels=(8, 6), dense=True).eval()
    dense.load_state_dict(network.state_dict())
    image = torch.randn(2, 4, 8, 8, 8)

    with torch.no_grad():
        output = dense(image)
        torch.testing.assert_close(output, torch.cat([logits.softmax(1) for logits in network(image).values()], 1))
    for probabilities in output.split((5, 5, 2), 1):
        torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 8, 8, 8))


def test_dense_form_of_the_single_task() -> None:
    network = trained(SingleTaskNet(num_classes=3, channels=(4, 6))).eval()
    dense = SingleTaskNet(num_classes=3, channels=(4, 6), dense=True).eval()
    dense.load_state_dict(network.state_dict())
    image = torch.randn(2, 4, 8, 8, 8)

    with torch.no_grad():
        torch.testing.assert_close(dense(image), network(image).softmax(1))


PATCHES = [torch.tensor([0, 1]), torch.tensor([3, 1]), torch.tensor([], dtype=torch.long)]


@pytest.mark.parametrize("attention", ["cga", "se", None])
@pytest.mark.parametrize("training", [True, False])
def test_patches(attention: str | None, training: bool) -> None:
    """Plain heads run on their patches; with CGA all heads run on all, as guides, and logits are chosen."""
    network = narrow(attention=attention, channels=(8, 6), dropout=0.0).train(training)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(4, 4, 8, 8, 8)
    with torch.no_grad():
        outputs = network(image, PATCHES)
        after = {key: value.clone() for key, value in network.state_dict().items()}
        network.load_state_dict(state)

        if attention == "cga":
            expected = {task: logits[i] for (task, logits), i in zip(network(image).items(), PATCHES, strict=True)}
        else:
            features = network.backbone(image)
            expected = {task: network.heads[task](features[i]) for task, i in zip(TASKS[:2], PATCHES[:2], strict=True)}
            expected["enhancing"] = torch.zeros(0, 2, 8, 8, 8)  # the head did not run
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(after, network.state_dict())


@pytest.mark.parametrize("attention", ["cga", "se", None])
def test_a_head_without_patches_gets_no_gradient(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 6)).train()
    outputs = network(torch.randn(4, 4, 8, 8, 8), PATCHES)
    sum(output.sum() for output in outputs.values()).backward()

    assert all(p.grad is None for p in network.heads["enhancing"].parameters())
    assert all(p.grad.isfinite().all() for p in network.heads["tumour"].parameters())


# The cascade.


@pytest.mark.parametrize("training", [True, False])
def test_the_networks_of_the_cascade_run_on_their_patches_only(training: bool) -> None:
    cascade, image = Cascade(channels=(4, 6, 8), dropout=0.0).train(training), torch.randn(4, 4, 8, 8, 8)
    singles = {task: SingleTaskNet(num_classes=c, channels=(4, 6, 8), dropout=0.0) for task, c in zip(TASKS, (5, 5, 2))}
    for task, single in singles.items():
        single.load_state_dict(cascade.nets[task].state_dict())
        single.train(training)
    outputs = cascade(image, PATCHES)

    for task, chosen in zip(TASKS[:2], PATCHES[:2], strict=True):
        torch.testing.assert_close(outputs[task], singles[task](image[chosen]))
        torch.testing.assert_close(cascade.nets[task].state_dict(), singles[task].state_dict())
    assert outputs["enhancing"].shape == (0, 2, 8, 8, 8)
    outputs["tumour"].sum().backward()
    assert {name.split(".")[1] for name, p in cascade.named_parameters() if p.grad is not None} == {"tumour"}


def test_dense_form_of_the_cascade() -> None:
    network, image = trained(Cascade(channels=(4, 6))).eval(), torch.randn(2, 4, 8, 8, 8)
    dense = Cascade(channels=(4, 6), dense=True).eval()
    dense.load_state_dict(network.state_dict())

    with torch.no_grad():
        expected = [network.nets[task](image).softmax(1) for task in TASKS]
        torch.testing.assert_close(dense(image), torch.cat(expected, 1))


# Numbers and errors.


@pytest.mark.parametrize("attention", ["cga", "cga-", "se", None])
def test_probabilities_in_float32_also_under_autocast(attention: str | None) -> None:
    network = narrow(attention=attention, channels=(8, 6), dense=True)
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(image)

    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())  # the softmax itself was not rounded
    assert (output - network(image)).abs().mean() < 0.05


def test_statistics_in_float32_also_under_autocast() -> None:
    features, p = torch.randn(2, 6, 999).relu(), torch.rand(2, 2, 999)
    with torch.autocast("cpu", torch.bfloat16):
        m = channel_importance(features, p)

    assert m.dtype == torch.float32
    assert torch.equal(m, channel_importance(features, p))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float64])
def test_other_precisions(precision: torch.dtype) -> None:
    network = narrow(statistics_window=(8, 8, 4)).to(precision)

    outputs = network(torch.randn(1, 4, 8, 8, 8, dtype=precision))
    assert {output.dtype for output in outputs.values()} == {precision}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "CGA"}, r"attention='CGA': expected one of 'cga', 'cga-', 'se', None"),
        ({"num_classes": (5, 2)}, r"num_classes=\(5, 2\): expected three numbers, the first two at least 4"),
        ({"num_classes": (5, 3, 2)}, r"num_classes=\(5, 3, 2\): expected three"),
        ({"statistics_window": (32, 32)}, r"statistics_window=\(32, 32\): expected None or three sizes"),
        ({"statistics_window": (32, 32, 0)}, r"statistics_window=\(32, 32, 0\): expected None or three sizes"),
    ],
)
def test_unknown_option_raises(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OMNet(**options)


def test_a_cascade_of_another_number_of_tasks_raises() -> None:
    with pytest.raises(ValueError, match=r"num_classes=\(5, 2\): expected three numbers"):
        Cascade(num_classes=(5, 2))


@pytest.mark.parametrize("kind", [OMNet, Cascade])
@pytest.mark.parametrize(("dense", "number"), [(True, 3), (False, 2)])
def test_patches_that_do_not_fit_raise(kind: type, dense: bool, number: int) -> None:
    with pytest.raises(ValueError, match=r"patches: expected three tensors"):
        kind(channels=(4, 6, 8), dense=dense)(torch.zeros(2, 4, 8, 8, 8), number * [torch.tensor([0])])


def test_size_of_the_paper_network_must_be_a_multiple_of_8() -> None:
    with pytest.raises(ValueError, match=r"spatial size 155 is not divisible by 8; pad to 160"):
        OMNet()(torch.zeros(1, 4, 8, 8, 155))
