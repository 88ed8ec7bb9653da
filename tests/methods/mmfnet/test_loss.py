from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor


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
