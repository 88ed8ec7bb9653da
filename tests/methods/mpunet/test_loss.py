from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from common.errors import InputError
from common.methods.mpunet import TverskyCrossEntropyLoss


def cube(length: int = 4) -> Tensor:
    """Make a block of 8 voxels a side with a box of 4 x 4 x ``length``; its lower end does not move."""
    label = torch.zeros(1, 1, 8, 8, 8)
    label[..., 2:6, 2:6, 2 : 2 + length] = 1
    return label


def sure(label: Tensor) -> Tensor:
    return torch.cat([1 - label, label], dim=1)


def naive(probabilities: Tensor, label: Tensor, alpha: float, beta: float, weight: float, smooth: float) -> float:
    """Compute eq. 19 with binary logarithms of each class, item by item."""
    losses, logs = [], []
    for p_item, truth in zip(probabilities.double(), label):
        for k, p in enumerate(p_item):
            tp = fp = fn = 0.0
            for value, true in zip(p.flatten().tolist(), truth.flatten().tolist()):
                g = float(true == k)
                tp, fp, fn = tp + value * g, fp + value * (1 - g), fn + (1 - value) * g
                logs.append(-math.log(value if g else 1 - value))
            losses.append(1 - tp / (tp + alpha * fp + beta * fn + smooth))
    return sum(losses) / len(losses) + weight * sum(logs) / len(logs)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_equals_the_equation(n_classes: int) -> None:
    probabilities = torch.randn(2, n_classes, 4, 3, 2).softmax(1)
    label = torch.randint(n_classes, (2, 1, 4, 3, 2)).float()
    loss = TverskyCrossEntropyLoss(0.2, 0.6, 1.5, 2.0)(probabilities, label)
    assert loss.item() == pytest.approx(naive(probabilities, label, 0.2, 0.6, 1.5, 2.0), rel=1e-5)
    loss = TverskyCrossEntropyLoss()(probabilities, label)
    assert loss.item() == pytest.approx(naive(probabilities, label, 0.3, 0.7, 1.0, 1.0), rel=1e-5)


@pytest.mark.parametrize(
    ("probabilities", "loss"),
    [
        (sure(cube()), 0.51201),
        (sure(1 - cube()), 2.00320),
        (torch.full((1, 2, 8, 8, 8), 0.5), 1.30742),
        (sure(cube(6)), 0.632),
        (sure(cube(2)), 0.757),
    ],
    ids=["perfect", "worst", "half", "too large", "too small"],
)
def test_numbers_of_the_released_form(probabilities: Tensor, loss: float) -> None:
    value = TverskyCrossEntropyLoss(ce_on_sigmoid=True)(probabilities, cube()).item()
    assert value == pytest.approx(loss, abs=1e-4 if loss > 1 or loss < 0.6 else 5e-4)


def test_floor_of_a_perfect_prediction() -> None:
    """1 / (TP + 1) of each class; nothing of the cross-entropy, unless it is taken of the sigmoid."""
    tversky = (1 / 65 + 1 / 449) / 2
    assert TverskyCrossEntropyLoss()(sure(cube()), cube()).item() == pytest.approx(tversky, abs=1e-6)
    floor = (-math.log(1 / (1 + math.exp(-1))) - math.log(0.5)) / 2
    assert TverskyCrossEntropyLoss(ce_on_sigmoid=True)(sure(cube()), cube()).item() == pytest.approx(floor + tversky)


def test_a_miss_costs_more_than_as_much_too_much() -> None:
    loss = TverskyCrossEntropyLoss(ce_weight=0)
    assert loss(sure(cube(6)), cube()) < loss(sure(cube(2)), cube())
    mirrored = TverskyCrossEntropyLoss(alpha=0.9, beta=0.1, ce_weight=0)  # more, as the larger one has the larger TP
    assert mirrored(sure(cube(6)), cube()) > mirrored(sure(cube(2)), cube())


def test_gradient_is_finite_where_a_probability_is_0_or_1() -> None:
    logits = torch.cat([200 * cube(), -200 * cube()], dim=1).requires_grad_()  # wrong without a doubt, elsewhere 0.5
    loss = TverskyCrossEntropyLoss()(logits.softmax(1), cube())
    loss.backward()
    assert loss.isfinite() and loss > 1
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.any()


def test_in_float32_also_inside_autocast() -> None:
    probabilities = torch.randn(1, 2, 8, 8, 8).softmax(1).bfloat16()
    for ce_on_sigmoid in (False, True):
        loss = TverskyCrossEntropyLoss(ce_on_sigmoid=ce_on_sigmoid)
        expected = loss(probabilities.float(), cube())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(probabilities, cube())
        assert value.dtype == torch.float32 and torch.equal(value, expected)


@pytest.mark.parametrize(
    ("probabilities", "label"), [((1, 1, 4, 4, 4), (1, 1, 4, 4, 4)), ((1, 2, 4, 4, 4), (1, 2, 4, 4, 4))]
)
def test_other_shapes_raise(probabilities: tuple[int, ...], label: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(B, 2 or more, x, y, z\) and \(B, 1, x, y, z\)"):
        TverskyCrossEntropyLoss()(torch.zeros(probabilities), torch.zeros(label))


def test_with_equal_weights_it_is_the_dice_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 4, 4, 4, generator=generator).softmax(1)
    label = torch.randint(0, 3, (2, 1, 4, 4, 4), generator=generator)
    options = {"alpha": 0.5, "beta": 0.5, "ce_weight": 0.0, "smooth": 1e-5, "include_background": False, "batch": True}
    dice = DiceLoss(include_background=False, to_onehot_y=True, batch=True, smooth_nr=0.0, smooth_dr=2e-5)
    torch.testing.assert_close(TverskyCrossEntropyLoss(**options)(maps, label), dice(maps, label))
