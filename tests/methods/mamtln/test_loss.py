from __future__ import annotations

import math

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from common.errors import InputError
from common.methods.mamtln import JaccardFocalLoss, ReleasedJaccardFocalLoss, UncertaintyWeightedLoss


def naive(logits: Tensor, label: Tensor, alpha: float, gamma: float, eta: float) -> float:
    """Compute eq. 9 to 11, voxel by voxel, for each foreground class against the rest."""
    n_classes, losses = logits.shape[1], []
    for k in range(1, n_classes):
        jaccard, focal, n = 0.0, 0.0, 0
        for z, target in zip(logits.double().flatten(2), label.flatten(1)):
            overlap = union = 0.0
            for values, true in zip(z.T.tolist(), target.tolist()):
                p, q = math.exp(values[k]) / sum(math.exp(v) for v in values), float(true == k)
                overlap += q * p
                union += q**2 + p**2 - q * p
                focal -= alpha * q * (1 - p) ** gamma * math.log(p)
                focal -= (1 - alpha) * (1 - q) * p**gamma * math.log(1 - p)
                n += 1
            jaccard += (1 - (overlap + 1e-5) / (union + 1e-5)) / len(logits)
        losses.append(jaccard + eta * focal / n)
    return sum(losses) / len(losses)


def of_fraction(fraction: float) -> tuple[Tensor, Tensor]:
    """Return logits of 0 and a label with this share of foreground."""
    label = torch.zeros(1, 1, 10, 10, 10)
    label.view(-1)[: round(1000 * fraction)] = 1
    return torch.zeros(1, 2, 10, 10, 10), label


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize(("alpha", "gamma", "eta"), [(0.2, 1.0, 0.1), (0.75, 0.2, 0.01), (0.8, 2.0, 1.0)])
def test_equals_the_equations(n_classes: int, alpha: float, gamma: float, eta: float) -> None:
    logits = 3 * torch.randn(2, n_classes, 4, 3, 2)
    label = torch.randint(n_classes, (2, 1, 4, 3, 2)).float()
    loss = JaccardFocalLoss(alpha, gamma, eta)(logits, label)
    assert loss.item() == pytest.approx(naive(logits, label, alpha, gamma, eta), rel=1e-4)


def test_defaults_are_those_of_the_paper() -> None:
    logits, label = torch.randn(2, 2, 4, 3, 2), torch.randint(2, (2, 1, 4, 3, 2))
    assert JaccardFocalLoss()(logits, label).item() == pytest.approx(naive(logits, label, 0.2, 1.0, 0.1), rel=1e-4)


def test_jaccard_of_half_everywhere() -> None:
    """Expect 1 - 2 f / (2 f + 1) for p = 1/2 and a share f of foreground."""
    assert JaccardFocalLoss(eta=0)(*of_fraction(0.3)).item() == pytest.approx(0.625, rel=1e-5)


@pytest.mark.parametrize(("alpha", "focal"), [(0.2, 0.27518), (0.8, 0.07139)])
def test_focal_of_half_everywhere(alpha: float, focal: float) -> None:
    """Expect log(2) / 2 * (alpha f + (1 - alpha) (1 - f)) for p = 1/2 and a share f of foreground."""
    logits, label = of_fraction(0.01)
    jaccard = JaccardFocalLoss(eta=0)(logits, label)
    loss = JaccardFocalLoss(alpha=alpha, eta=1)(logits, label)
    assert (loss - jaccard).item() == pytest.approx(focal, abs=1e-5)


def test_the_released_loss_is_worked_by_hand() -> None:
    """Expect it for 1000 voxels of p = 1/2, of which 10 are foreground.

    Jaccard: 1 - 5 / (10 + 500 - 5). Focal: log(2) / 2 * (0.8 * 10 + 0.2 * 990).
    """
    logits, label = of_fraction(0.01)
    logits.requires_grad_()
    jaccard = ReleasedJaccardFocalLoss(eta=0)(logits, label)
    assert jaccard.item() == pytest.approx(500 / 505, rel=1e-6)
    focal = ReleasedJaccardFocalLoss(eta=1)(logits, label) - jaccard
    assert focal.item() == pytest.approx(206 * math.log(2) / 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(focal, logits)
    inside, outside = (gradient[0, 1][label[0, 0] == value].unique() for value in (1, 0))
    assert inside.tolist() == pytest.approx([-0.2]) and outside.tolist() == pytest.approx([0.05])  # weight / 4
    assert ReleasedJaccardFocalLoss(gamma=0, eta=1)(logits, label) - jaccard > 1.9 * focal


def test_jaccard_equals_monai() -> None:
    logits, label = torch.randn(3, 2, 6, 5, 4), torch.randint(2, (3, 1, 6, 5, 4)).float()
    monai = DiceLoss(sigmoid=True, jaccard=True, squared_pred=True, smooth_nr=2e-5, smooth_dr=2e-5)
    expected = monai(logits[:, 1:] - logits[:, :1], label)
    assert torch.allclose(JaccardFocalLoss(eta=0)(logits, label), expected, rtol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_right_is_0_and_wrong_is_more(n_classes: int) -> None:
    label = torch.randint(n_classes, (2, 1, 6, 5, 4))
    right = 30.0 * torch.nn.functional.one_hot(label[:, 0], n_classes).movedim(-1, 1)
    loss = JaccardFocalLoss()
    assert loss(right, label).item() == pytest.approx(0.0, abs=1e-5)
    assert loss(0 * right, label) > 0.5
    assert loss(-right, label) > 1


@pytest.mark.parametrize("gamma", [0.0, 0.2, 1.0, 2.0])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_gradient_is_finite_also_of_sure_voxels_and_empty_labels(gamma: float, size: float) -> None:
    logits = (size * torch.randn(2, 3, 4, 4, 4)).requires_grad_()
    label = torch.randint(3, (2, 1, 4, 4, 4))
    label[1] = 0
    loss = JaccardFocalLoss(gamma=gamma)(logits, label)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[1].any() or size > 1  # of the empty one, by the focal loss


def test_no_overlap_and_no_foreground() -> None:
    empty = torch.zeros(1, 1, 4, 4, 4)
    background = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 4)
    assert JaccardFocalLoss()(background, empty).item() == pytest.approx(0.0, abs=1e-6)
    assert JaccardFocalLoss(eta=0)(-background, empty).item() == pytest.approx(1.0, abs=1e-5)


def test_in_float32_also_inside_autocast() -> None:
    logits, label = torch.randn(1, 2, 6, 5, 4).bfloat16(), torch.randint(2, (1, 1, 6, 5, 4))
    expected = JaccardFocalLoss()(logits.float(), label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = JaccardFocalLoss()(logits, label)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)


@pytest.mark.parametrize(("logits", "label"), [((1, 1, 4, 4, 4), (1, 1, 4, 4, 4)), ((1, 2, 4, 4, 4), (1, 2, 4, 4, 4))])
def test_other_shapes_raise(logits: tuple[int, ...], label: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(B, 2 or more, x, y, z\) and \(B, 1, x, y, z\)"):
        JaccardFocalLoss()(torch.zeros(logits), torch.zeros(label))


def test_cases_without_a_class_train_the_segmentation() -> None:
    outputs = {"seg": torch.randn(2, 2, 4, 4, 4), "class": torch.randn(2, 2)}
    label = (torch.rand(2, 1, 4, 4, 4) < 0.3).float()
    loss = UncertaintyWeightedLoss(JaccardFocalLoss(), stage_weights={"seg": 1.0})(outputs, {"seg": label})
    assert torch.equal(loss, JaccardFocalLoss()(outputs["seg"], label))
