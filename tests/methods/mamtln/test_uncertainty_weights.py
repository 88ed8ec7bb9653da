from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.errors import InputError
from common.methods.mamtln import JaccardFocalLoss, UncertaintyWeightedLoss

CLASS_LOSS = math.log(3)  # of equal logits
TARGETS = {"seg": torch.ones(2, 1, 2, 2, 2), "class": torch.tensor([0, 2])}


def mean_difference(output: Tensor, label: Tensor) -> Tensor:
    assert output.dtype == torch.float32
    return (output - label).mean()


def outputs(**values: float) -> dict[str, Tensor]:
    """Return constant maps; the loss of each is its value less 1."""
    return {name: torch.full((2, 1, 2, 2, 2), float(value)) for name, value in values.items()}


def classes() -> dict[str, Tensor]:
    return {"class": torch.zeros(2, 3)}


def test_starts_as_half_of_each_with_the_stage_weights() -> None:
    """0.5 (L_SDS + L_class), where L_SDS = 0.8 * 1 + 0.9 * 2 + 1.0 * 4."""
    maps = outputs(seg=5, aux_va=2, aux_asa=3) | classes()
    loss = UncertaintyWeightedLoss(mean_difference)(maps, TARGETS)
    assert loss.item() == pytest.approx(0.5 * (0.8 + 1.8 + 4.0 + CLASS_LOSS))


def test_gradient_of_the_weights_at_the_start() -> None:
    loss = UncertaintyWeightedLoss(mean_difference)
    loss(outputs(seg=5) | classes(), TARGETS).backward()
    assert loss.log_variances is not None and loss.log_variances.grad is not None
    assert loss.log_variances.tolist() == [0, 0]
    assert loss.log_variances.grad.tolist() == pytest.approx([0.5 * (1 - 4), 0.5 * (1 - CLASS_LOSS)])


def test_value_and_gradient_of_the_tasks_under_other_weights() -> None:
    """Eq. 14 with its own a: L_seg / (2 a1^2) + L_class / (2 a2^2) + log(a1 a2)."""
    loss, (a1, a2) = UncertaintyWeightedLoss(mean_difference), (1.7, 0.6)
    assert loss.log_variances is not None
    loss.log_variances.data = torch.tensor([math.log(a1**2), math.log(a2**2)])
    maps = outputs(seg=5) | classes()
    maps["seg"].requires_grad_()
    value = loss(maps, TARGETS)
    value.backward()
    assert value.item() == pytest.approx(4 / (2 * a1**2) + CLASS_LOSS / (2 * a2**2) + math.log(a1 * a2))
    assert maps["seg"].grad is not None
    assert maps["seg"].grad.sum().item() == pytest.approx(1 / (2 * a1**2))


def test_learned_weights_end_where_the_variance_is_the_loss() -> None:
    loss = UncertaintyWeightedLoss(mean_difference)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        loss(outputs(seg=5) | classes(), TARGETS).backward()
        optimizer.step()
    assert loss.log_variances is not None
    assert loss.log_variances.tolist() == pytest.approx([math.log(4), math.log(CLASS_LOSS)], abs=1e-4)


def test_log_variances_have_a_bound_and_recover_from_it() -> None:
    loss = UncertaintyWeightedLoss(mean_difference, lowest=-3.0)
    assert loss.log_variances is not None
    optimizer = torch.optim.SGD([loss.log_variances], lr=1.0)

    def step(seg: float) -> float:
        optimizer.zero_grad()
        value = loss(outputs(seg=seg) | classes(), TARGETS)
        value.backward()
        optimizer.step()
        return value.item()

    values = [step(1.0) for _ in range(40)]
    assert min(values) > 0.5 * (-3.0 + math.log(CLASS_LOSS) + 1) - 1e-4
    assert loss.log_variances[0].item() == -3.5  # a step below, which the next call takes back
    value = step(1.1)
    assert value == pytest.approx(0.5 * (math.exp(3) * 0.1 - 3 + math.log(CLASS_LOSS) + 1), abs=1e-3)
    assert loss.log_variances[0].item() == pytest.approx(-3 - 0.5 * (1 - math.exp(3) * 0.1), abs=1e-4)
    for _ in range(30):
        step(1.1)
    assert loss.log_variances[0].item() == pytest.approx(math.log(0.1), abs=1e-3)


def test_lowest_is_minus_10_by_default() -> None:
    loss = UncertaintyWeightedLoss(mean_difference)
    assert loss.log_variances is not None
    loss.log_variances.data = torch.tensor([-50.0, 0.0])
    assert loss(outputs(seg=1) | classes(), TARGETS).item() == pytest.approx(0.5 * (-10 + CLASS_LOSS))


def test_equal_weights() -> None:
    loss = UncertaintyWeightedLoss(mean_difference, weighting="equal")
    assert loss(outputs(seg=5, aux_va=2) | classes(), TARGETS).item() == pytest.approx(0.5 * (4.8 + CLASS_LOSS))
    assert not [*loss.parameters()]


def test_one_task_has_neither_weight_nor_parameter() -> None:
    for weighting in ("uncertainty", "equal"):
        seg = UncertaintyWeightedLoss(mean_difference, task="seg", weighting=weighting)
        assert seg(outputs(seg=5, aux_va=2), {"seg": TARGETS["seg"]}).item() == pytest.approx(4.8)
        one = UncertaintyWeightedLoss(mean_difference, task="class", weighting=weighting)
        assert one(classes(), TARGETS).item() == pytest.approx(CLASS_LOSS)
        assert not [*seg.parameters(), *one.parameters()]


def test_parameters_are_saved_with_the_state() -> None:
    loss = UncertaintyWeightedLoss(JaccardFocalLoss())
    assert {name: value.shape for name, value in loss.state_dict().items()} == {"log_variances": (2,)}
    assert UncertaintyWeightedLoss(JaccardFocalLoss(), weighting="equal").state_dict() == {}


def test_with_the_loss_of_the_paper_everything_gets_a_gradient() -> None:
    maps = {name: torch.randn(2, 2, 6, 5, 4).requires_grad_() for name in ("seg", "aux_va", "aux_asa")}
    maps["class"] = torch.randn(2, 2).requires_grad_()
    targets = {"seg": torch.randint(2, (2, 1, 6, 5, 4)).float(), "class": torch.tensor([1, 0])}
    loss = UncertaintyWeightedLoss(JaccardFocalLoss())
    loss(maps, targets).backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in (*maps.values(), *loss.parameters()))


def test_in_float32_also_inside_autocast() -> None:
    maps = {"seg": torch.randn(2, 2, 6, 5, 4).bfloat16(), "class": torch.randn(2, 2).bfloat16()}
    targets = {"seg": torch.randint(2, (2, 1, 6, 5, 4)), "class": torch.tensor([1, 0])}
    loss = UncertaintyWeightedLoss(JaccardFocalLoss())
    expected = loss({name: output.float() for name, output in maps.items()}, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(maps, targets)
    assert value.dtype == torch.float32 and torch.equal(value, expected)


@pytest.mark.parametrize(
    ("task", "maps"),
    [
        ("both", outputs(seg=1)),
        ("both", classes()),
        ("seg", outputs(seg=1) | classes()),
        ("class", outputs(seg=1) | classes()),
        ("seg", outputs(seg=1, aux_4=1)),
    ],
)
def test_outputs_of_other_tasks_raise(task: str, maps: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"the network returns .*set task and stage_weights as the network has"):
        UncertaintyWeightedLoss(mean_difference, task=task)(maps, TARGETS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"task": "classes"}, "task 'classes': expected 'seg', 'class' or 'both'"),
        ({"task": ["seg", "class"]}, "expected 'seg', 'class' or 'both'"),
        ({"weighting": "none"}, "weighting 'none': expected 'uncertainty' or 'equal'"),
    ],
)
def test_wrong_settings_raise(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        UncertaintyWeightedLoss(mean_difference, **kwargs)
