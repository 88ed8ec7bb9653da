from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN
from common.methods.mamtln.attention import ASAModule, TaskAttention, VABlock, VALayer, WeightedFusion
from common.methods.mamtln.backbone import Bottleneck, NormalisedConvolution
from common.methods.mamtln.blocks import Fusion, Merge, pointwise
from common.methods.mamtln.network import ClassificationBranch, SegmentationBranch

from ..networks import TwoFormsTests

W, GROUPS = 16, 8
NARROW = {"width": W, "planes": (8, 16, 16, 16), "blocks": (2, 1, 1, 1), "cardinality": 4, "norm_groups": GROUPS}
SIZES = ((9, 8, 5), (5, 4, 5), (3, 2, 5), (3, 2, 5))  # of the four scales


def trained(module: nn.Module) -> nn.Module:
    """In float64 and eval mode, with weights and statistics as after training."""
    for m in module.modules():
        if isinstance(m, (nn.BatchNorm3d, nn.GroupNorm)):
            nn.init.uniform_(m.weight, 0.5, 2)
            nn.init.normal_(m.bias, std=0.3)
        if isinstance(m, nn.BatchNorm3d):
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2)
        if isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, -0.2, 0.4)
        if isinstance(m, WeightedFusion):
            nn.init.uniform_(m.weight, 0.2, 2)
    return module.double().eval()


def narrow(**options: object) -> MAMTLN:
    return trained(MAMTLN(**NARROW, **options))


def scales(width: int = W) -> list[Tensor]:
    return [torch.randn(2, width, *size, dtype=torch.float64) for size in SIZES]


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


class TestMAMTLN(TwoFormsTests):
    network = MAMTLN
    options: ClassVar[dict[str, Any]] = {**NARROW, "blocks": (1, 1, 1, 1)}
    image = (2, 1, 24, 20, 6)
    out_channels = 2 + 2
    heads: ClassVar[dict[str, int]] = {"aux_va": 2, "aux_asa": 2, "seg": 2, "class": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "out_channels": 3, "num_classes": 4}
    other_out_channels = 3 + 4
    any_size = True
    not_in_inference = "aux_|fusion_asa"  # the inference form leaves out the deep supervision

    def prepare(self, network: nn.Module) -> None:
        # else no maximum of the pooling is below 0, and the slope before it gets no gradient
        nn.init.constant_(network.backbone.stem[0].norm.bias, -1.5)


class TestReleasedWithGroupNormalisation(TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {
        **TestMAMTLN.options,
        "asa_refine": True,
        "norm": "group",
        "pool_stride": (2, 2, 1),
    }


class TestSegmentationAlone(TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {**TestMAMTLN.options, "task": "seg"}
    out_channels = 2
    heads: ClassVar[dict[str, int]] = {"aux_va": 2, "aux_asa": 2, "seg": 2}
    other_out_channels = 3


class TestClassAlone(TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {**TestMAMTLN.options, "task": "class", "num_classes": 3}
    out_channels = 3
    heads: ClassVar[dict[str, int]] = {"class": 3}
    other_out_channels = 4


class TestBaseline(TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {
        **TestMAMTLN.options,
        **dict.fromkeys(("use_va", "use_asa", "use_ta", "use_sds"), False),
    }
    heads: ClassVar[dict[str, int]] = {"seg": 2, "class": 2}


# Numbers of the specification.


@pytest.mark.parametrize(("refine", "total"), [(False, 8_743_447), (True, 9_663_267)])
def test_parameters(refine: bool, total: int) -> None:
    network = MAMTLN(asa_refine=refine)
    va, asa = network.va, network.asa

    assert parameters(network) == total
    assert parameters(network.backbone) == 3_708_105
    assert parameters(network.backbone.stem) == 22_081
    assert [parameters(layer) for layer in network.backbone.layers] == [71_963, 372_292, 2_183_366, 1_058_403]
    first = [26_889, 105_745, 419_361, 352_801]
    others = [22_537, 88_849, 352_801, 352_801]
    for layer, one, more in zip(network.backbone.layers, first, others):
        assert [parameters(block) for block in layer] == [one] + [more] * (len(layer) - 1)
    assert sum(b.numel() for b in network.backbone.buffers()) == 26_036
    assert [parameters(project) for project in network.project] == [8_385, 16_577, 32_961, 32_961]
    assert [parameters(down) for down in va.down] == [4_225, 4_225]
    assert parameters(va.top_down, va.bottom_up) == 17
    assert [parameters(block) for block in va.blocks] == [1_127_169, 680_449, 344_385, 344_385]
    assert [parameters(branch) for branch in va.blocks[0].branches] == [114_816, 221_312, 331_968, 442_624]
    assert parameters(va, network.project) == 2_595_746 - 7  # the released slopes of the fusion weights
    assert [parameters(module.mask) for module in asa] == [225_730] * 4
    assert [parameters(*module.reduce) for module in asa] == [2 * 1_057] * 4
    assert [parameters(module.weigh) for module in asa] == [66] * 4
    assert [parameters(module.down) for module in asa if module.down] == [110_721] * 3
    without_refine = 229_955 * (not refine)
    assert [parameters(module) for module in asa] == [457_865 - without_refine] + [568_586 - without_refine] * 3
    assert [parameters(fusion) for fusion in (network.fusion_va, network.fusion_asa)] == [238_147] * 2
    seg, cls = network.seg, network.cls
    assert parameters(seg.attention2.merge, seg.attention2.mask) == 16_641
    assert parameters(seg.attention1.merge, seg.attention1.mask) == 12_545
    assert [parameters(a.refine) for a in (seg.attention2, seg.attention1)] == [110_785] * 2
    assert parameters(seg.attention2, seg.attention1) == 250_756
    assert parameters(cls.down, cls.attention2, cls.attention3) == 468_102
    assert [parameters(head) for head in (network.aux_va, network.aux_asa, seg.head)] == [130] * 3
    assert parameters(cls.head) == 258


@pytest.mark.parametrize("size", [(64, 64, 8), (50, 70, 13)])
def test_sizes_of_the_features(size: tuple[int, int, int]) -> None:
    network = MAMTLN(**NARROW)
    halves = [tuple(-(-n // (2**k if axis < 2 else 2)) for axis, n in enumerate(size)) for k in (2, 3, 4, 4)]
    image = torch.randn(1, 1, *size)

    with torch.no_grad():
        features = network.backbone(image)
        outputs = network(image)

    assert [f.shape[1:] for f in features] == [(c, *half) for c, half in zip((16, 32, 32, 32), halves)]
    assert {name: o.shape for name, o in outputs.items()} == {
        "aux_va": (1, 2, *size),
        "aux_asa": (1, 2, *size),
        "seg": (1, 2, *size),
        "class": (1, 2),
    }


def test_the_pooling_may_keep_the_slices() -> None:
    with torch.no_grad():
        features = MAMTLN(**NARROW, pool_stride=(2, 2, 1)).backbone(torch.randn(1, 1, 32, 32, 7))
    assert [f.shape[2:] for f in features] == [(8, 8, 7), (4, 4, 7), (2, 2, 7), (2, 2, 7)]


def test_initialisation() -> None:
    network = MAMTLN()
    for m in network.backbone.modules():
        if isinstance(m, nn.Conv3d):
            fan_out = m.weight.shape[0] * m.weight[0, 0].numel()
            assert m.bias is None
            assert m.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    bound = (1 / (64 * 27)) ** 0.5  # PyTorch's: uniform
    after = network.fusion_va.refine[0].conv.weight
    assert after.abs().max().item() == pytest.approx(bound, rel=0.01) and after.abs().max() <= bound
    assert {p.weight.item() for p in network.modules() if isinstance(p, nn.PReLU)} == {0.25}


def test_normalisations() -> None:
    network, grouped = MAMTLN(), MAMTLN(norm="group")
    assert len([m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]) == 1 + 3 * 16 + 3
    assert not [m for m in grouped.modules() if isinstance(m, nn.BatchNorm3d)]
    assert [len([m for m in n.backbone.modules() if isinstance(m, nn.GroupNorm)]) for n in (network, grouped)] == [
        0,
        52,
    ]
    assert {m.num_groups for m in grouped.modules() if isinstance(m, nn.GroupNorm)} == {32, 16}
    halved = [network.va.down, network.cls.down, *(m.down for m in network.asa if m.down), *network.asa[0].reduce]
    assert {m.num_groups for h in halved for m in h.modules() if isinstance(m, nn.GroupNorm)} == {16}


# The parts against their formulas as they are written.


def equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


def cgp(layer: nn.Module, x: Tensor, stride: tuple[int, ...] = (1, 1, 1), groups: int = GROUPS) -> Tensor:
    """Convolution, group normalisation, PReLU of a layer's weights."""
    padding = layer.conv.weight.shape[-1] // 2
    y = F.conv3d(x, layer.conv.weight, layer.conv.bias, stride, padding)
    return F.prelu(F.group_norm(y, groups, layer.norm.weight, layer.norm.bias), layer.act.weight)


def down(layer: nn.Module, x: Tensor) -> Tensor:
    return cgp(layer, x, (2, 2, 1), GROUPS // 2)


def fused(layer: Fusion, maps: list[Tensor]) -> Tensor:
    y = cgp(layer.merge, torch.cat([up(m, maps[-1]) for m in maps], 1))
    return cgp(layer.refine[1], cgp(layer.refine[0], y))


def conv_bn(layer: NormalisedConvolution, x: Tensor, *args: object) -> Tensor:
    y, norm = F.conv3d(x, layer.conv.weight, None, *args), layer.norm
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@pytest.mark.parametrize(("c", "stride", "dilation"), [(32, (1, 1, 1), 1), (32, (1, 1, 1), 2), (12, (2, 2, 1), 1)])
def test_bottleneck(c: int, stride: tuple[int, int, int], dilation: int) -> None:
    block = trained(Bottleneck(c, 16, stride, dilation, 4, ("batch", {})))
    x = torch.randn(2, c, 5, 6, 4, dtype=torch.float64)

    y = F.prelu(conv_bn(block.conv1, x), block.act.weight)
    y = F.prelu(conv_bn(block.conv2, y, stride, dilation, dilation, 4), block.act.weight)
    y = conv_bn(block.conv3, y)
    hidden = F.leaky_relu(block.excite.fc[0](y.mean((2, 3, 4))), 0.01)
    scale = torch.sigmoid(block.excite.fc[2](hidden))
    assert hidden.shape == (2, 2) and (scale > 0).all() and (scale < 1).all()
    shortcut = x if c == 32 else conv_bn(block.shortcut, x, stride)
    expected = F.prelu(y * scale[:, :, None, None, None] + shortcut, block.act.weight)

    assert len([m for m in block.modules() if isinstance(m, nn.PReLU)]) == 1
    equal(block(x), expected)
    with torch.no_grad():
        equal(block(x), expected)  # folded


def test_a_shortcut_is_projected_where_it_must_be() -> None:
    layers = MAMTLN().backbone.layers
    projected = [[not isinstance(block.shortcut, nn.Identity) for block in layer] for layer in layers]
    assert projected == [[True] + [False] * 2, [True] + [False] * 3, [True] + [False] * 5, [False] * 3]
    assert [[block.conv2.conv.dilation[0] for block in layer][-1] for layer in layers] == [1, 1, 1, 2]
    assert {block.conv2.conv.groups for layer in layers for block in layer} == {32}


def test_normalisation_is_folded_without_a_gradient_only() -> None:
    layer = trained(NormalisedConvolution(3, 8, ("batch", {}), 3))
    calls: list[Tensor] = []
    layer.norm.register_forward_hook(lambda *args: calls.append(args[2]))
    x = torch.randn(2, 3, 5, 4, 3, dtype=torch.float64)

    with torch.no_grad():
        folded = layer(x)
    assert not calls
    equal(folded, layer(x))
    assert len(calls) == 1
    with torch.no_grad():
        layer.train()(x)
    assert len(calls) == 2


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_pointwise(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 6, 5, 4, 3, dtype=torch.float64).contiguous(memory_format=memory_format)
    weight, bias = torch.randn(4, 6, 1, 1, 1, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    found = pointwise(x, weight, bias)

    equal(found, torch.einsum("oi,bixyz->boxyz", weight[..., 0, 0, 0], x) + bias.view(1, -1, 1, 1, 1))
    assert found.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("maps", [scales()[::-1], [torch.cat(scales()[2:], 1), scales()[1]], scales()[2:]])
def test_shares_of_a_convolution_are_that_of_the_concatenation(maps: list[Tensor]) -> None:
    layer = trained(Merge(sum(m.shape[1] for m in maps), W, GROUPS))
    equal(layer(maps), cgp(layer, torch.cat([up(m, maps[-1]) for m in maps], 1)))


@pytest.mark.parametrize("branches", [1, 2, 3, 4])
def test_va_block(branches: int) -> None:
    block = trained(VABlock(W, branches))
    x = torch.randn(2, W, 9, 8, 6, dtype=torch.float64)

    masks = []
    for n in range(branches):
        *before, last = block.branches[n]
        y = x
        assert len(before) == max(1, n)
        for conv in before:
            y = F.conv3d(y, conv.weight, conv.bias, padding=1 if n else 0)
        dilation = ((1, 1, 1), (3, 3, 3), (5, 5, 5), (7, 7, 5))[n]
        masks.append(torch.sigmoid(F.conv3d(y, last.weight, last.bias, padding=dilation, dilation=dilation)))
        assert (masks[-1] > 0).all() and (masks[-1] < 1).all()
    y = F.conv3d(torch.cat([mask * x for mask in masks], 1), block.fuse.weight, block.fuse.bias)
    equal(block(x), F.prelu(y + x, block.act.weight))

    nn.init.zeros_(block.fuse.weight)
    nn.init.zeros_(block.fuse.bias)
    equal(block(x), F.prelu(x, block.act.weight))


@pytest.mark.parametrize("n", [2, 3])
def test_fusion_weights(n: int) -> None:
    layer = WeightedFusion(n).double()
    assert layer.weights().tolist() == pytest.approx([1 / (n + 1e-4)] * n)
    assert layer.weights().sum().item() == pytest.approx({2: 0.99995, 3: 0.99997}[n], abs=5e-6)

    for _ in range(10):
        nn.init.normal_(layer.weight)
        with torch.no_grad():
            layer.weight[0] = 0.5
            weights = layer.weights()
        assert (weights >= 0).all() and 1 - 1e-3 < weights.sum() < 1
        assert (weights[layer.weight < 0] == 0).all()

    maps = [torch.randn(2, 3, 4, 3, 2, dtype=torch.float64) for _ in range(n)]
    w = layer.weight.relu()
    mean = sum(w[i] * maps[i] for i in range(n)) / (w.sum() + 1e-4)
    equal(layer(maps), mean * torch.sigmoid(mean))


def test_va_layer() -> None:
    layer, p = trained(VALayer(W, GROUPS)), scales()
    f, td, bu = layer.blocks, layer.top_down, layer.bottom_up

    i4 = f[3](p[3])
    i3 = f[2](td[2]([p[2], i4]))
    i2 = f[1](td[1]([p[1], up(i3, p[1])]))
    i1 = f[0](td[0]([p[0], up(i2, p[0])]))
    v1 = bu[0]([p[0], i1])
    v2 = bu[1]([p[1], i2, down(layer.down[0], v1)])
    v3 = bu[2]([p[2], i3, down(layer.down[1], v2)])
    v4 = bu[3]([p[3], i4, v3])

    for found, expected in zip(layer(p), (v1, v2, v3, v4)):
        equal(found, expected)
    assert [len(block.branches) for block in f] == [4, 3, 2, 2]


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize(("scale", "steps"), [(0, 0), (1, 1), (2, 2)])
def test_asa_module(scale: int, steps: int, refine: bool) -> None:
    module, maps = trained(ASAModule(W, GROUPS, steps, refine)), scales()
    v, multi_scale = maps[scale], scales()[0]

    m = multi_scale
    for _ in range(steps):
        m = down(module.down, m)
    z = torch.cat([cgp(r, y, groups=GROUPS // 2) for r, y in zip(module.reduce, (v, m))], 1)
    z = F.conv3d(z, module.weigh.weight, module.weigh.bias)
    w_n, w_m = (z[:, i : i + 1].exp() / z.exp().sum(1, keepdim=True) for i in (0, 1))

    def sigma(x: Tensor) -> Tensor:
        first, second, last = module.mask
        return torch.sigmoid(F.conv3d(cgp(second, cgp(first, x)), last.weight, last.bias, padding=1))

    expected = w_n * v * sigma(v) + w_m * m * sigma(m)
    if refine:
        expected = fused(module.refine, [v, expected * m])
    equal(module(v, multi_scale), expected)

    equal(module.matched(multi_scale), m)
    equal(module.weights(v, m).sum(1), torch.ones(v.shape[0], *v.shape[2:], dtype=torch.float64))
    masks = module.masks(v)
    assert masks.shape == v.shape and (masks > 0).all() and (masks < 1).all()


def test_both_masks_are_made_in_one_call() -> None:
    module, maps = trained(ASAModule(W, GROUPS, 0, False)), scales()
    batches: list[int] = []
    module.mask.register_forward_hook(lambda *args: batches.append(len(args[2])))
    module(maps[0], maps[0])
    assert batches == [4]


def attended(layer: TaskAttention, maps: list[Tensor]) -> Tensor:
    y = cgp(layer.merge, torch.cat([up(m, maps[-1]) for m in maps], 1))
    if layer.mask is not None:
        mask = torch.sigmoid(F.conv3d(y, layer.mask.weight, layer.mask.bias))
        assert (mask > 0).all() and (mask < 1).all()
        y = mask * maps[-1]
    return cgp(layer.refine, y)


@pytest.mark.parametrize("attention", [True, False])
def test_segmentation_branch(attention: bool) -> None:
    branch, a = trained(SegmentationBranch(W, GROUPS, attention, 3)), scales()
    s2 = attended(branch.attention2, [torch.cat([a[3], a[2]], 1), a[1]])
    s1 = attended(branch.attention1, [s2, a[0]])
    equal(branch(a), F.conv3d(s1, branch.head.weight, branch.head.bias))


@pytest.mark.parametrize("attention", [True, False])
def test_classification_branch(attention: bool) -> None:
    branch, a = trained(ClassificationBranch(W, GROUPS, attention, 3)), scales()
    t2 = attended(branch.attention2, [down(branch.down[0], a[0]), a[1]])
    t3 = attended(branch.attention3, [down(branch.down[1], t2), a[2]])
    pooled = torch.cat([t3, a[3]], 1).mean((2, 3, 4))
    equal(branch(a), pooled @ branch.head.weight.T + branch.head.bias)


@pytest.mark.parametrize("use_va", [True, False])
@pytest.mark.parametrize("use_asa", [True, False])
def test_whole_network(use_va: bool, use_asa: bool) -> None:
    """Heads after the up-sampling, fusions of maps of the finest size."""
    network = narrow(use_va=use_va, use_asa=use_asa, out_channels=3)
    image = torch.randn(2, 1, 33, 28, 7, dtype=torch.float64)

    v = [cgp(project, f) for project, f in zip(network.project, network.backbone(image))]
    v = network.va(v) if use_va else v
    multi_scale = fused(network.fusion_va, v[::-1])
    a = [module(x, multi_scale) for module, x in zip(network.asa, v)] if use_asa else v
    s2 = attended(network.seg.attention2, [a[3], a[2], a[1]])
    s1 = attended(network.seg.attention1, [s2, a[0]])

    def head(layer: nn.Conv3d, x: Tensor) -> Tensor:
        return F.conv3d(up(x, image), layer.weight, layer.bias)

    expected = {
        "aux_va": head(network.aux_va, multi_scale),
        "aux_asa": head(network.aux_asa, fused(network.fusion_asa, a[::-1])),
        "seg": head(network.seg.head, s1),
        "class": network.cls(a),
    }
    outputs = network(image)
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        torch.testing.assert_close(output, expected[name].float())


def test_channels_last_gives_the_same() -> None:
    network, image = narrow(dense=True), torch.randn(2, 1, 33, 28, 7, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        found = network.to(memory_format=torch.channels_last_3d)(image.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(found, expected)


# Forms and options.


@pytest.mark.parametrize("task", ["both", "seg", "class"])
def test_the_dense_form_is_segmentation_then_class(task: str) -> None:
    network, image = narrow(task=task, out_channels=3), torch.randn(2, 1, 20, 17, 4, dtype=torch.float64)
    outputs = network(image)
    network.dense = True
    pred = network(image)

    expected = []
    if task != "class":
        expected.append(outputs["seg"])
    if task != "seg":
        expected.append(outputs["class"].view(2, 2, 1, 1, 1) * torch.ones(1, 1, 20, 17, 4))
    assert (
        set(outputs)
        == {
            "both": {"aux_va", "aux_asa", "seg", "class"},
            "seg": {"aux_va", "aux_asa", "seg"},
            "class": {"class"},
        }[task]
    )
    assert torch.equal(pred, torch.cat(expected, 1))


@pytest.mark.parametrize("use_asa", [True, False])
def test_the_dense_form_leaves_out_deep_supervision(use_asa: bool) -> None:
    network, called = narrow(use_asa=use_asa, dense=True), set()
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    network(torch.randn(1, 1, 20, 17, 4, dtype=torch.float64))
    # the modules of a list are called one by one
    assert called == {"backbone", "va", "seg", "cls"} | ({"fusion_va"} if use_asa else set())


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"use_va": False}, {"va"}),
        ({"use_asa": False}, {"asa"}),
        ({"use_sds": False}, {"aux_va", "aux_asa", "fusion_asa"}),
        ({"use_asa": False, "use_sds": False}, {"asa", "aux_va", "aux_asa", "fusion_va", "fusion_asa"}),
        ({"task": "seg"}, {"cls"}),
        ({"task": "class"}, {"seg", "aux_va", "aux_asa", "fusion_asa"}),
        ({"task": "class", "use_asa": False}, {"seg", "asa", "aux_va", "aux_asa", "fusion_va", "fusion_asa"}),
    ],
)
def test_what_an_option_excludes_is_not_built(options: dict, missing: set[str]) -> None:
    assert {name for name, _ in MAMTLN(**NARROW).named_children()} - {
        name for name, _ in MAMTLN(**NARROW, **options).named_children()
    } == missing


def test_without_task_attention_only_the_masks_are_gone() -> None:
    whole, plain = (set(MAMTLN(**NARROW, use_ta=ta).state_dict()) for ta in (True, False))
    attentions = ("seg.attention1", "seg.attention2", "cls.attention2", "cls.attention3")
    assert whole - plain == {f"{name}.mask.{kind}" for name in attentions for kind in ("weight", "bias")}
    assert plain <= whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "all"}, "task='all': expected one of 'both', 'seg', 'class'"),
        ({"norm": "instance"}, "norm='instance'"),
        ({"blocks": (1, 1)}, r"blocks=\(1, 1\): expected 4 numbers"),
        ({"asa_refine": True, "use_asa": False}, "asa_refine=True: expected use_asa=True"),
    ],
)
def test_options_that_there_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAMTLN(**{**NARROW, **options})


def test_an_image_of_which_one_voxel_remains() -> None:
    network = narrow()
    with pytest.raises(ValueError, match=r"\[16, 16, 2\] leaves one voxel .* beyond \[16, 16, 2\]"):
        network(torch.zeros(1, 1, 16, 16, 2, dtype=torch.float64))
    network(torch.zeros(1, 1, 16, 17, 2, dtype=torch.float64))
