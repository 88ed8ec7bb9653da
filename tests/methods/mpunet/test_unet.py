from __future__ import annotations

import io
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.methods.mpunet import AdditiveUNet

from ..networks import TwoFormsTests, parameters
from .formulas import lively, plain_map


class TestAdditiveUNet(TwoFormsTests):
    network = AdditiveUNet
    options: ClassVar[dict[str, Any]] = {"channels": (4, 8, 8, 8)}
    image = (2, 1, 16, 32, 16)
    out_channels = 2
    heads: ClassVar[dict[str, int]] = {"aux_16": 2, "aux_8": 2, "aux_4": 2, "seg": 2}
    other: ClassVar[dict[str, Any]] = {"in_channels": 2, "out_channels": 3}
    other_out_channels = 3
    not_in_inference = "coarse_heads"  # the inference form is the finest map alone

    def inference_of(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["seg"]


def plain_unet(n: AdditiveUNet, x: Tensor) -> dict[str, Tensor]:
    skips = []
    for i in range(4):
        x = F.max_pool3d(F.conv3d(x, n.encoder[i][0].weight, n.encoder[i][0].bias, padding=1), 2).clamp(min=0)
        skips.append(x)
    outputs = {}
    for i, conv in enumerate([n.decoder[0][0], n.decoder[1][0], n.decoder[2][0], n.last[0]]):
        if i < 3:
            outputs[f"aux_{16 >> i}"] = plain_map(n.coarse_heads[i], x, 16 >> i)
        x = F.conv3d(x, conv.weight, conv.bias, padding=1)
        x = F.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False).clamp(min=0)
        if i < 3:
            x = x + skips[2 - i]
    outputs["seg"] = plain_map(n.head, x, 1)
    return outputs


def test_the_baseline_against_plain_formulas() -> None:
    network, x = lively(AdditiveUNet(out_channels=3, channels=(4, 5, 6, 8))), torch.randn(2, 1, 16, 32, 16)
    outputs, expected = network(x), plain_unet(network, x)
    assert list(outputs) == ["aux_16", "aux_8", "aux_4", "seg"]
    for name, values in outputs.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-5)
    network.dense = True
    assert torch.equal(network(x), outputs["seg"])


def test_the_baseline_has_the_published_size() -> None:
    network = AdditiveUNet()
    assert parameters(network) == 2_326_638
    assert parameters(AdditiveUNet(out_channels=3)) == 2_327_092 + 14 * (32 * 27 + 1) + 14 * 3  # 16 features
    adam = torch.optim.Adam(network.parameters())
    sum(values.square().sum() for values in network(torch.randn(1, 1, 16, 16, 16)).values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    adam.step()
    file = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimizer": adam.state_dict()}, file)
    assert file.tell() / 2**20 == pytest.approx(26.65, abs=0.02)  # table 6
