from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.methods.multirnet import FocalTverskyLoss, SegmentationClassLoss

CLASS_LOSS = math.log(3)  # of equal logits
TARGETS = {"seg": torch.ones(2, 1, 2, 2, 2), "class": torch.tensor([0, 2])}
SEG = {"seg": torch.full((2, 1, 2, 2, 2), 3.0)}
CLASS = {"class": torch.zeros(2, 3)}


def mean_difference(output: Tensor, label: Tensor) -> Tensor:
    return (output - label).mean()


@pytest.mark.parametrize("weight", [0.5, 0.2, 0.0])
def test_weighted_mean_of_segmentation_and_class(weight: float) -> None:
    loss = SegmentationClassLoss(mean_difference, weight)(SEG | CLASS, TARGETS)
    assert loss.item() == pytest.approx(weight * CLASS_LOSS + (1 - weight) * 2)


def test_both_losses_have_the_weight_one_half_by_default() -> None:
    loss = SegmentationClassLoss(mean_difference)(SEG | CLASS, TARGETS)
    assert loss.item() == pytest.approx(0.5 * CLASS_LOSS + 0.5 * 2)


def test_without_a_class_it_is_the_segmentation_loss() -> None:
    assert SegmentationClassLoss(mean_difference)(SEG, {"seg": TARGETS["seg"]}).item() == 2


def test_in_float32_also_inside_autocast() -> None:
    maps = {"seg": torch.randn(2, 1, 6, 5, 4).bfloat16(), "class": torch.randn(2, 2).bfloat16()}
    targets = {"seg": torch.randint(2, (2, 1, 6, 5, 4)), "class": torch.tensor([1, 0])}
    loss = SegmentationClassLoss(FocalTverskyLoss())
    expected = loss({name: output.float() for name, output in maps.items()}, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(maps, targets)
    assert value.dtype == torch.float32 and torch.equal(value, expected)
