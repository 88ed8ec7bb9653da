"""Test the numbers of parameters, the parts of each option, and the initialisation of MA-MTLN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.methods.mamtln import MAMTLN

from ..networks import parameters
from .formulas import NARROW


@pytest.mark.parametrize(("refine", "total"), [(False, 8_743_447), (True, 9_663_267)])
def test_parameters(refine: bool, total: int) -> None:
    with torch.device("meta"):
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
    with torch.device("meta"):
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
