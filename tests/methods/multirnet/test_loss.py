from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss, TverskyLoss
from torch import Tensor

from common.errors import InputError
from common.methods.multirnet import FocalTverskyLoss, SegmentationClassLoss


def naive(logits: Tensor, label: Tensor, exponent: float, alpha: float, beta: float) -> float:
    """Compute eq. 6 and 7 over the batch, with alpha on false negatives."""
    p, g = logits.double().sigmoid(), label.double()
    tp, fn, fp = (p * g).sum(), ((1 - p) * g).sum(), (p * (1 - g)).sum()
    return float((1 - (tp + 1e-5) / (tp + alpha * fn + beta * fp + 1e-5)) ** exponent)


def box(length: int) -> Tensor:
    label = torch.zeros(1, 1, 8, 8, 8)
    label[..., 2:6, 2:6, :length] = 1
    return label


def sure(label: Tensor) -> Tensor:
    return 60 * label - 30


def test_equals_the_equations() -> None:
    logits, label = torch.randn(3, 1, 5, 4, 3), (torch.rand(3, 1, 5, 4, 3) < 0.3).float()
    assert FocalTverskyLoss()(logits, label).item() == pytest.approx(naive(logits, label, 0.9, 0.7, 0.3), rel=1e-5)
    loss = FocalTverskyLoss(0.5, 0.9, 0.4)(logits, label)
    assert loss.item() == pytest.approx(naive(logits, label, 0.5, 0.9, 0.4), rel=1e-5)


def test_is_the_power_of_monais_tversky_loss() -> None:
    logits, label = torch.randn(2, 1, 5, 4, 3), (torch.rand(2, 1, 5, 4, 3) < 0.3).float()
    monai = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True)(logits, label)
    assert torch.allclose(FocalTverskyLoss()(logits, label), monai**0.9)


@pytest.mark.parametrize(("length", "alpha", "beta"), [(3, 0.7, 0.3), (5, 0.3, 0.7)])
def test_a_miss_costs_more_than_a_false_alarm(length: int, alpha: float, beta: float) -> None:
    label, loss = box(4), FocalTverskyLoss(alpha=alpha, beta=beta)
    missed, too_much = loss(sure(box(3)), label), loss(sure(box(5)), label)
    assert (missed > too_much) == (alpha > beta)
    assert loss(sure(box(length)), label) == max(missed, too_much)


def test_perfect_is_0_with_a_finite_gradient() -> None:
    logits = (20 * sure(box(4))).requires_grad_()
    loss = FocalTverskyLoss()(logits, box(4))
    loss.backward()
    assert loss.item() == pytest.approx(1e-7**0.9, abs=1e-9)
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_false_alarms_of_a_sample_without_foreground_count() -> None:
    """They are summed with the other samples; alone their gradient would be next to none."""
    logits = torch.zeros(2, 1, 8, 8, 8).requires_grad_()
    FocalTverskyLoss()(logits, torch.cat([box(4), torch.zeros(1, 1, 8, 8, 8)])).backward()
    assert logits.grad is not None
    assert logits.grad[1].min() > 1e-5
    logits.grad = None
    FocalTverskyLoss()(logits[1:], torch.zeros(1, 1, 8, 8, 8)).backward()
    assert logits.grad[1].abs().max() < 1e-7


@pytest.mark.parametrize(("absent", "value", "slope"), [("index", 0.9999925, 4.6874e-7), ("mean", 0.535887, 0.0301436)])
def test_a_batch_without_foreground(absent: str, value: float, slope: float) -> None:
    """Compare with numbers worked by hand: 8 voxels of probability 0.5, so 4 false positives.

    By the index, 1 - TI = 1.2 / 1.20001, with a slope of 0.3 * 1e-5 / 1.20001^2 for a probability. By the mean, 0.5 has
    a slope of 1 / 8. The power multiplies a slope by 0.9 * (1 - TI)^-0.1, and the sigmoid by 0.25.
    """
    logits = torch.zeros(2, 1, 2, 2, 1).requires_grad_()
    loss = FocalTverskyLoss(absent=absent)(logits, torch.zeros(2, 1, 2, 2, 1))
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=5e-7)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.full_like(logits, slope), rtol=1e-4, atol=0)


def test_the_mean_is_only_of_absent_labels() -> None:
    logits = torch.randn(2, 2, 5, 4, 3)
    masks = torch.stack([torch.rand(2, 5, 4, 3) < 0.3, torch.zeros(2, 5, 4, 3, dtype=torch.bool)], 1).float()
    loss = FocalTverskyLoss(absent="mean")(logits, masks)
    present = naive(logits[:, :1], masks[:, :1], 0.9, 0.7, 0.3)
    assert loss.item() == pytest.approx((present + logits[:, 1].sigmoid().mean().item() ** 0.9) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="absent='zero': expected one of 'index', 'mean'"):
        FocalTverskyLoss(absent="zero")


def test_in_float32_also_inside_autocast() -> None:
    logits, label = torch.randn(1, 1, 8, 8, 8).bfloat16(), box(4)
    expected = FocalTverskyLoss()(logits.float(), label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FocalTverskyLoss()(logits, label)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)


@pytest.mark.parametrize(
    "seg_loss",
    [
        DiceLoss(sigmoid=True, batch=True),
        TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True),
        FocalTverskyLoss(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_of_the_ablations_fit(seg_loss: torch.nn.Module) -> None:
    outputs = {"seg": torch.randn(2, 1, 8, 8, 8).requires_grad_(), "class": torch.randn(2, 3).requires_grad_()}
    targets = {"seg": box(4).repeat(2, 1, 1, 1, 1), "class": torch.tensor([2, 0])}
    loss = SegmentationClassLoss(seg_loss)(outputs, targets)
    loss.backward()
    assert loss.shape == () and all(output.grad is not None and output.grad.any() for output in outputs.values())
    right = {"seg": sure(targets["seg"]), "class": torch.tensor([[0.0, 0.0, 30.0], [30.0, 0.0, 0.0]])}
    assert SegmentationClassLoss(seg_loss)(right, targets).item() == pytest.approx(0.0, abs=1e-5)


def test_the_loss_of_several_labels_is_their_mean() -> None:
    logits, label = torch.randn(2, 3, 5, 4, 3), torch.randint(0, 4, (2, 1, 5, 4, 3)).float()
    loss = SegmentationClassLoss(FocalTverskyLoss())({"seg": logits}, {"seg": label})
    expected = [naive(logits[:, k : k + 1], label == k + 1, 0.9, 0.7, 0.3) for k in range(3)]
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            torch.full((1, 1, 8, 8, 8), 3.0),
            "the label map has the value 3, but the network has maps of the values 1 to 2",
        ),
        (torch.zeros(1, 1, 8, 8, 4), r"maps of shape \[1, 2, 8, 8, 8\] with a label of shape \[1, 1, 8, 8, 4\]"),
        (torch.zeros(1, 2, 8, 8, 8), r"expected \(B, labels, \.\.\.\) and \(B, 1, \.\.\.\)"),
    ],
)
def test_a_label_that_does_not_fit_the_maps_is_refused(label: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationClassLoss(FocalTverskyLoss())({"seg": torch.zeros(1, 2, 8, 8, 8)}, {"seg": label})


def test_cases_without_a_class_train_the_segmentation() -> None:
    outputs = {"seg": torch.randn(2, 1, 4, 4, 4), "class": torch.randn(2, 3)}
    label = (torch.rand(2, 1, 4, 4, 4) < 0.3).float()
    loss = SegmentationClassLoss(FocalTverskyLoss())(outputs, {"seg": label})
    assert torch.equal(loss, FocalTverskyLoss()(outputs["seg"], label))
