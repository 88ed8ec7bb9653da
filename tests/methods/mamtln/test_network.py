from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from common.methods.mamtln import MAMTLN

from ..networks import TwoFormsTests, Variant
from .formulas import NARROW, narrow, plain_network


class TestMAMTLN(TwoFormsTests):
    network = MAMTLN
    options: ClassVar[dict[str, Any]] = {**NARROW, "blocks": (1, 1, 1, 1)}
    image = (2, 1, 24, 20, 6)
    out_channels = 2 + 2
    heads: ClassVar[dict[str, int]] = {"aux_va": 2, "aux_asa": 2, "seg": 2, "class": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "out_channels": 3, "num_classes": 4}
    other_out_channels = 3 + 4
    wrong_options = (
        ({"task": "all"}, "task='all': expected one of 'both', 'seg', 'class'"),
        ({"norm": "instance"}, "norm='instance'"),
        ({"blocks": (1, 1)}, r"blocks=\(1, 1\): expected 4 numbers"),
        ({"asa_refine": True, "use_asa": False}, "asa_refine=True: expected use_asa=True"),
    )
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


@pytest.mark.parametrize("use_va", [True, False])
@pytest.mark.parametrize("use_asa", [True, False])
def test_whole_network_against_its_formulas(use_va: bool, use_asa: bool) -> None:
    network = narrow(use_va=use_va, use_asa=use_asa, out_channels=3)
    image = torch.randn(2, 1, 33, 28, 7, dtype=torch.float64)
    outputs, expected = network(image), plain_network(network, image)
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        torch.testing.assert_close(output, expected[name].float())


@pytest.mark.parametrize("use_asa", [True, False])
def test_inference_form_skips_deep_supervision(use_asa: bool) -> None:
    network, called = narrow(use_asa=use_asa, dense=True), set()
    for name, module in network.named_children():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    network(torch.randn(1, 1, 20, 17, 4, dtype=torch.float64))
    # the modules of a list are called one by one
    assert called == {"backbone", "va", "seg", "cls"} | ({"fusion_va"} if use_asa else set())


def test_image_that_shrinks_to_one_voxel_raises() -> None:
    network = narrow()
    with pytest.raises(ValueError, match=r"\[16, 16, 2\] leaves one voxel .* beyond \[16, 16, 2\]"):
        network(torch.zeros(1, 1, 16, 16, 2, dtype=torch.float64))
    network(torch.zeros(1, 1, 16, 17, 2, dtype=torch.float64))
