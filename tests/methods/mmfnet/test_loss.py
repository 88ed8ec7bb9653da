from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from common.errors import InputError
from common.methods.mmfnet import LabelMapsLoss, MMFNet


def naive_dice_loss(p: Tensor, g: Tensor) -> Tensor:
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)


@pytest.mark.parametrize(
    ("p", "g", "expected"),
    [
        ([1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], 0),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 0),
        ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], 1 - 1 / 5),
        ([0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0], 1 - 2 / 4),
    ],
)
def test_loss_against_hand_made_values(p: list[float], g: list[float], expected: float) -> None:
    loss_function = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)
    predicted, truth = (torch.tensor(v).view(2, 1, 2, 1, 1) for v in (p, g))

    assert loss_function(predicted, truth).item() == pytest.approx(expected, abs=1e-7)


def test_loss_sums_over_the_batch() -> None:
    p, g = torch.randn(3, 1, 4, 4, 4).sigmoid(), (torch.randn(3, 1, 4, 4, 4) > 1).float()
    g[0] = 0  # a window without tumour has no Dice of its own

    torch.testing.assert_close(DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)(p, g), naive_dice_loss(p, g))


def maps_and_label(labels: int) -> tuple[Tensor, Tensor]:
    return torch.rand(2, labels, 4, 5, 6), torch.randint(0, labels + 1, (2, 1, 4, 5, 6))


def test_one_label_has_the_dice_loss_alone() -> None:
    dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True)
    probabilities, label = maps_and_label(labels=1)
    assert torch.equal(LabelMapsLoss(dice)(probabilities, label.float()), dice(probabilities, label.float()))


def test_several_labels_have_a_dice_loss_each_and_cross_entropy() -> None:
    probabilities, label = maps_and_label(labels=3)
    masks = torch.cat([(label == value).float() for value in (1, 2, 3)], 1)
    dice = torch.stack([naive_dice_loss(probabilities[:, i], masks[:, i]) for i in range(3)]).mean()
    entropy = -(masks * probabilities.log() + (1 - masks) * (1 - probabilities).log()).mean()
    loss_function = LabelMapsLoss(DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True), cross_entropy=0.5)
    torch.testing.assert_close(loss_function(probabilities, label), dice + 0.5 * entropy)


def test_probabilities_of_0_and_1_have_a_finite_loss() -> None:
    probabilities = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1, 1).requires_grad_()
    loss = LabelMapsLoss(DiceLoss(), cross_entropy=1.0)(probabilities, torch.tensor([1, 0]).view(1, 1, 2, 1, 1))
    loss.backward()
    assert loss.isfinite() and probabilities.grad is not None and probabilities.grad.isfinite().all()


def test_a_label_without_a_map_is_refused() -> None:
    probabilities, label = maps_and_label(labels=2)
    with pytest.raises(InputError, match=r"has the value 3, but the network has maps of the values 1 to 2; give"):
        LabelMapsLoss(DiceLoss())(probabilities, torch.full_like(label, 3))
    with pytest.raises(InputError, match=r"shape \[2, 2, 4, 5, 6\] with a label of shape \[2, 2, 4, 5, 6\]: expected"):
        LabelMapsLoss(DiceLoss())(probabilities, label.expand(-1, 2, -1, -1, -1))


@pytest.mark.slow
def test_the_network_learns_three_labels() -> None:
    label = torch.zeros(1, 1, 16, 16, 8)
    for place, value in ((2, 1), (6, 2), (11, 3)):
        label[:, :, place : place + 4, 3:12, 2:6] = value
    image = label + 0.1 * torch.randn_like(label)
    network = MMFNet(1, 3, channels=(8, 8), fusion="concat").train()
    loss_function = LabelMapsLoss(DiceLoss(smooth_nr=1.0, smooth_dr=1.0, batch=True), cross_entropy=1.0)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        loss_function(network(image), label).backward()
        optimizer.step()
    with torch.no_grad():
        maps = network(image)
    decided = torch.cat([1 - maps.amax(1, keepdim=True), maps], 1).argmax(1, keepdim=True)
    for value in (1, 2, 3):
        found, true = decided == value, label == value
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9
