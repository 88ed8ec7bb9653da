"""Make cases, networks that fail, and data sets that report what is read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Identity(nn.Module):
    """Return the input, or fail for the values given."""

    def __init__(self, failures: dict[float, BaseException]) -> None:
        super().__init__()
        self.failures = failures

    def forward(self, x: Tensor) -> Tensor:
        error = self.failures.get(x.max().item())
        if error is not None:
            raise error
        return x


NO_MEMORY = "not enough memory (out of memory); use a machine with more memory, or a smaller scan"


def case(name: str, value: float) -> dict[str, Any]:
    volume = torch.full((1, 2, 2, 2), value)
    return {"case": name, "image": volume, "truth": volume}


def ratio(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return 1, or NaN for an empty ground truth."""
    assert prediction.shape == truth.shape == (1, 1, 2, 2, 2)
    return (prediction.sum() / truth.sum()).reshape(1, 1)


def largest(prediction: Tensor, truth: Tensor) -> float:
    return prediction.max().item()


def written(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Cases(Dataset):
    """Call a function when a case is read."""

    def __init__(self, cases: list[dict], on_read: Callable[[str], None]) -> None:
        self.cases = cases
        self.on_read = on_read

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict:
        self.on_read(self.cases[index]["case"])
        return self.cases[index]


class Watched(nn.Module):
    """Return the input, after a call with its largest value."""

    def __init__(self, on_call: Callable[[float], None]) -> None:
        super().__init__()
        self.on_call = on_call

    def forward(self, x: Tensor) -> Tensor:
        self.on_call(x.max().item())
        return x
