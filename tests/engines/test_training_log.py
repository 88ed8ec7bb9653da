"""Test the log line and the curves of each epoch of a training."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.data import DataLoader
from torch import nn
from torch.optim.lr_scheduler import StepLR

from common.engines import Stage, StagedTrainer
from common.handlers import EpochCurves

from ..trainers import curves, run_until

VOLUMES = torch.linspace(-1, 1, 6 * 8).reshape(6, 1, 2, 2, 2)
VALIDATION = VOLUMES[:1]
halved = functools.partial(StepLR, step_size=1, gamma=0.5)


def batches() -> DataLoader:
    return DataLoader([{"image": image, "label": image.flip(3)} for image in VOLUMES], batch_size=2)


def conv() -> nn.Module:
    return nn.Conv3d(1, 1, 1)


def sgd(rate: float) -> Callable:
    return functools.partial(torch.optim.SGD, lr=rate)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "training loss" in line]


def test_a_line_holds_the_numbers_of_an_epoch(trainer: Callable, caplog: pytest.LogCaptureFixture) -> None:
    stages = [Stage("one", conv(), sgd(0.25), 2), Stage("two", conv(), sgd(0.5), 2, patience=2)]
    with caplog.at_level("INFO"):
        trainer(stages, batches(), VALIDATION, val_interval=2).run()
    number, time = r"-?\d+\.\d{4}", r"\d\S* (s|min)"
    ends = rf"{time}, at most {time} left"
    validation = rf"mean {number} \(best {number} in epoch \d\)"
    patterns = [
        rf"stage 'one', epoch 1: training loss {number}, not validated, learning rate 0.25, {ends}",
        rf"stage 'one', epoch 2: training loss {number}, {validation}, learning rate 0.25, {ends}",
        rf"stage 'two', epoch 3: training loss {number}, not validated, learning rate 0.5, {ends}",
        rf"stage 'two', epoch 4: training loss {number}, {validation}, learning rate 0.5, {time}",
    ]
    lines = lines_of(caplog)
    assert len(lines) == len(patterns)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines)), "\n".join(lines)


def test_the_time_left_is_an_upper_bound_only_with_patience(
    trainer: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        trainer([Stage("one", conv(), sgd(0.25), 2)], batches(), VALIDATION).run()
    first, last = lines_of(caplog)
    assert re.search(r"\d (s|min) left$", first) and "at most" not in first and "left" not in last


@pytest.mark.parametrize("interrupt", [None, 8])
def test_the_curves_hold_each_epoch_once(trainer: Callable, tmp_path: Path, interrupt: int | None) -> None:
    """The training is interrupted in its third epoch and continues."""

    def make(resume: bool) -> StagedTrainer:
        stages = [Stage("one", conv(), sgd(0.25), 2, halved), Stage("two", conv(), sgd(1), 3)]
        handlers = [EpochCurves(tmp_path / "models")]
        options = {"val_interval": 2, "train_handlers": handlers, "resume": resume}
        return trainer(stages, batches(), VALIDATION, **options)

    run_until(make(False), interrupt)
    if interrupt is not None:
        make(True).run()
    found = curves(tmp_path / "models")
    assert found.keys() == {"train_loss", "epoch_time", "learning_rate", "mean"}
    assert all([step for step, _ in found[name]] == [1, 2, 3, 4, 5] for name in ("train_loss", "epoch_time"))
    assert found["learning_rate"] == [(1, 0.25), (2, 0.125), (3, 1), (4, 1), (5, 1)]
    assert [step for step, _ in found["mean"]] == [2, 4, 5]
