from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.methods.mpunet import DeepSupervisionLoss, TverskyCrossEntropyLoss


def mean_difference(output: Tensor, label: Tensor) -> Tensor:
    assert output.dtype == torch.float32
    return (output - label).mean()


OUTPUTS = {
    "aux_8": torch.full((1, 1, 2, 2, 2), 10.0),
    "seg": torch.full((1, 1, 2, 2, 2), 3.0, dtype=torch.bfloat16),
    "aux_4": torch.full((1, 1, 2, 2, 2), 100.0, dtype=torch.float16),
    "class": torch.full((1, 2), 1e6),
}
TARGETS = {"seg": torch.ones(1, 1, 2, 2, 2), "class": torch.zeros(1, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("epoch", "weight"), [(1, 0.4), (30, 0.4), (31, 0.32), (60, 0.32), (61, 0.256), (600, 0.4 * 0.8**19)]
)
def test_weight_fades_with_the_epochs(epoch: int, weight: float) -> None:
    loss = DeepSupervisionLoss(mean_difference)
    assert loss(OUTPUTS, TARGETS).item() == pytest.approx(2 + 0.4 * (9 + 99))
    loss.set_epoch(epoch)
    assert loss(OUTPUTS, TARGETS).item() == pytest.approx(2 + weight * (9 + 99))
    loss.set_epoch(1)  # of a resumed run; nothing is added up
    assert loss(OUTPUTS, TARGETS).item() == pytest.approx(2 + 0.4 * (9 + 99))


def test_the_weight_of_the_coarse_maps_falls_by_epochs() -> None:
    loss = DeepSupervisionLoss(mean_difference, weight=1.0, decay=0.5, every=2)
    loss.set_epoch(5)
    assert loss(OUTPUTS, TARGETS).item() == pytest.approx(2 + 0.25 * (9 + 99))


def test_without_auxiliary_outputs_it_is_the_loss_of_seg() -> None:
    loss = DeepSupervisionLoss(mean_difference)({"seg": OUTPUTS["seg"]}, TARGETS)
    assert torch.equal(loss, torch.tensor(2.0))


def test_every_map_gets_a_gradient() -> None:
    outputs = {name: torch.randn(1, 2, 4, 4, 4).requires_grad_() for name in ("seg", "aux_8", "aux_4", "aux_2")}
    label = torch.randint(2, (1, 1, 4, 4, 4)).float()
    loss = DeepSupervisionLoss(TverskyCrossEntropyLoss())
    loss({name: output.softmax(1) for name, output in outputs.items()}, {"seg": label}).backward()
    assert all(output.grad is not None and output.grad.any() for output in outputs.values())
