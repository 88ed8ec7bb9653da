from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN
from common.methods.mamtln.network import ClassificationBranch, SegmentationBranch

from ..networks import TwoFormsTests, Variant
from .formulas import (
    GROUPS,
    NARROW,
    W,
    attended,
    cgp,
    down,
    equal,
    fused,
    narrow,
    parameters,
    scales,
    trained,
    up,
)


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

    def inference_of(self, outputs: dict[str, Tensor]) -> Tensor:
        voxels = torch.ones(1, 1, *self.image[2:])
        parts = {"seg": lambda seg: seg, "class": lambda logits: logits[:, :, None, None, None] * voxels}
        return torch.cat([part(outputs[name]) for name, part in parts.items() if name in outputs], 1)


class TestReleasedWithGroupNormalisation(Variant, TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {
        **TestMAMTLN.options,
        "asa_refine": True,
        "norm": "group",
        "pool_stride": (2, 2, 1),
    }


class TestSegmentationAlone(Variant, TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {**TestMAMTLN.options, "task": "seg"}
    out_channels = 2
    heads: ClassVar[dict[str, int]] = {"aux_va": 2, "aux_asa": 2, "seg": 2}
    other_out_channels = 3


class TestClassAlone(Variant, TestMAMTLN):
    options: ClassVar[dict[str, Any]] = {**TestMAMTLN.options, "task": "class", "num_classes": 3}
    out_channels = 3
    heads: ClassVar[dict[str, int]] = {"class": 3}
    other_out_channels = 4
    test_output_is_float32_also_under_autocast = None  # the logits of a class may be rounded


class TestBaseline(Variant, TestMAMTLN):
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


@pytest.mark.parametrize("attention", [True, False])
def test_segmentation_branch_against_its_formula(attention: bool) -> None:
    branch, a = trained(SegmentationBranch(W, GROUPS, attention, 3)), scales()
    s2 = attended(branch.attention2, [torch.cat([a[3], a[2]], 1), a[1]])
    s1 = attended(branch.attention1, [s2, a[0]])
    equal(branch(a), F.conv3d(s1, branch.head.weight, branch.head.bias))


@pytest.mark.parametrize("attention", [True, False])
def test_classification_branch_against_its_equations(attention: bool) -> None:
    branch, a = trained(ClassificationBranch(W, GROUPS, attention, 3)), scales()
    t2 = attended(branch.attention2, [down(branch.down[0], a[0]), a[1]])
    t3 = attended(branch.attention3, [down(branch.down[1], t2), a[2]])
    pooled = torch.cat([t3, a[3]], 1).mean((2, 3, 4))
    equal(branch(a), pooled @ branch.head.weight.T + branch.head.bias)


@pytest.mark.parametrize("use_va", [True, False])
@pytest.mark.parametrize("use_asa", [True, False])
def test_whole_network_against_its_formulas(use_va: bool, use_asa: bool) -> None:
    """Compare with heads that follow the up-sampling, and with fusions of maps at the finest size."""
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


# Forms and options.


@pytest.mark.parametrize("use_asa", [True, False])
def test_inference_form_skips_deep_supervision(use_asa: bool) -> None:
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
def test_excluded_parts_are_not_built(options: dict, missing: set[str]) -> None:
    assert {name for name, _ in MAMTLN(**NARROW).named_children()} - {
        name for name, _ in MAMTLN(**NARROW, **options).named_children()
    } == missing


def test_use_ta_removes_only_the_masks() -> None:
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
def test_unknown_option_raises(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MAMTLN(**{**NARROW, **options})


def test_image_that_shrinks_to_one_voxel_raises() -> None:
    network = narrow()
    with pytest.raises(ValueError, match=r"\[16, 16, 2\] leaves one voxel .* beyond \[16, 16, 2\]"):
        network(torch.zeros(1, 1, 16, 16, 2, dtype=torch.float64))
    network(torch.zeros(1, 1, 16, 17, 2, dtype=torch.float64))
