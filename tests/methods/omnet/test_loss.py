from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from common.methods.omnet import MultiTaskCrossEntropy


def naive(logits: Tensor, target: Tensor) -> float:
    """Compute the mean over voxels of the negative logarithm of the true class's probability."""
    total = 0.0
    for n in range(len(target)):
        for x, y in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
            values = logits[n, :, x, y, 0].tolist()
            total -= math.log(math.exp(values[int(target[n, x, y, 0])]) / sum(math.exp(v) for v in values))
    return total / target.numel()


def outputs(dtype: torch.dtype = torch.float32) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Make two tasks with two and three patches."""
    logits = {"one": torch.randn(2, 5, 2, 3, 1, dtype=dtype), "two": torch.randn(3, 2, 2, 3, 1, dtype=dtype)}
    targets = {
        "one": torch.randint(5, (2, 2, 3, 1), dtype=torch.uint8),
        "two": torch.randint(2, (3, 2, 3, 1), dtype=torch.uint8),
    }
    return logits, targets


def test_the_sum_of_each_tasks_mean() -> None:
    logits, targets = outputs()
    expected = naive(logits["one"], targets["one"]) + naive(logits["two"], targets["two"])
    assert MultiTaskCrossEntropy()(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_a_task_without_patches_adds_nothing() -> None:
    logits, targets = outputs()
    logits["two"], targets["two"] = logits["two"][:0].requires_grad_(), targets["two"][:0]
    logits["one"].requires_grad_()
    loss = MultiTaskCrossEntropy()(logits, targets)
    loss.backward()
    assert loss.item() == pytest.approx(naive(logits["one"], targets["one"]), rel=1e-5)
    assert logits["one"].grad is not None and logits["two"].grad is None


def test_the_loss_of_no_patches_is_0() -> None:
    logits, targets = ({task: values[:0] for task, values in entries.items()} for entries in outputs(torch.bfloat16))
    assert torch.equal(MultiTaskCrossEntropy()(logits, targets), torch.tensor(0.0))


def test_in_float32_also_of_bfloat16() -> None:
    logits, targets = outputs(torch.bfloat16)
    loss = MultiTaskCrossEntropy()(logits, targets)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, MultiTaskCrossEntropy()({k: v.float() for k, v in logits.items()}, targets))
