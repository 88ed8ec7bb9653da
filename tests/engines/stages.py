"""Make stages, losses and schedules for the tests of the trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    LambdaLR,
)

from common.engines import Plateau, Stage
from common.engines.training_folder import STATE_FILE
from common.layers import TwoForms

from ..trainers import run_until


class Normalised(TwoForms):
    """Apply batch normalisation and dropout; the dense form returns one tensor."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__(dense)
        self.body = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout(), nn.Conv3d(2, 1, 1))
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Any:
        self.modes.append((self.dense, self.training))
        return self.body(x) if self.dense else {"logits": self.body(x)}


def squares(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return (outputs["logits"] - targets).square().mean()


VOLUMES = torch.linspace(-1, 1, 6 * 8).reshape(6, 1, 2, 2, 2)
IMAGES = [{"image": image, "label": image.flip(3)} for image in VOLUMES]


def batches() -> DataLoader:
    return DataLoader(IMAGES, batch_size=2)


def conv() -> nn.Module:
    return nn.Conv3d(1, 1, 1)


def adam(rate: float, **options: Any) -> Callable:
    return functools.partial(torch.optim.Adam, lr=rate, **options)


def sgd(rate: float) -> Callable:
    return functools.partial(torch.optim.SGD, lr=rate)


def one_over(epochs: Callable[[int], float]) -> Callable:
    """Return a scheduler that multiplies the rate by a function of the epoch, from 1."""
    return lambda optimizer: LambdaLR(optimizer, lambda epoch: epochs(epoch + 1))


class Watch:
    """Record the learning rates of the parameter groups in each update."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        self.rates.append([group["lr"] for group in engine.optimizer.param_groups])


def two_groups(network: nn.Module) -> list[dict]:
    return [{"params": [network.weight]}, {"params": [network.bias], "lr_scale": 2.0}]


def run(make: Callable, folder: Path, *, interrupt: int | None = None, resume: bool = False, **options: Any) -> dict:
    torch.manual_seed(0)
    network = Normalised()
    engine = make(
        [Stage("one", network, adam(0.1), 3, one_over(lambda epoch: 1 / epoch))],
        batches(),
        VOLUMES,
        **{"loss_function": squares, "ckpt_dir": folder, "resume": resume, **options},
    )
    run_until(engine, interrupt)
    if interrupt is not None:
        return {}
    return torch.load(folder / STATE_FILE, weights_only=True)


class Weighed(nn.Module):
    """Weight two losses with trained parameters; the second loss begins with the second epoch."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.full((2,), start))
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        difference = output - target
        losses = torch.stack([difference.square().mean(), (self.epochs[-1] > 1) * difference.abs().mean()])
        return (0.5 * (-self.log_variance).exp() * losses + 0.5 * self.log_variance).sum()


def plateau_of(**options: Any) -> Callable:
    return functools.partial(
        Plateau, **{"factor": 0.5, "patience": 1, "threshold": 0.1, "smoothing": 0.25, "lowest": 0.0, **options}
    )


def weighed(make: Callable, folder: Path, interrupt: int | None = None, **options: Any) -> Any:
    """Train two stages; the plateau lowers the rate in every epoch of the second but its first."""
    torch.manual_seed(0)
    loss = options.pop("loss_function", None) or Weighed()
    plateau = options.pop("plateau", plateau_of(threshold=9.0, patience=0))
    stages = [
        Stage("one", conv(), adam(0.01, amsgrad=True, weight_decay=0.1), 3),
        Stage("two", conv(), adam(0.01, amsgrad=True), 4, plateau),
    ]
    engine = make(stages, batches(), VOLUMES, loss_function=loss, ckpt_dir=folder, **options)
    run_until(engine, interrupt)
    return engine


class Given(nn.Module):
    """Return the given loss of each epoch, for any output."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def set_epoch(self, epoch: int) -> None:
        self.value = self.values[epoch - 1]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        total = output.sum()
        return self.value + total - total.detach()  # a training without any gradient is refused


# The average 1, .625, .53125, .50781, .50195, ... is the least so far by .1 in epochs 1, 2 and 4.
FALLING = [1.0] + 15 * [0.5]
LOWERED = [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


class Level(nn.Module):
    """Return the level given for the epoch in validation, which the fixture scores."""

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = levels
        self.epoch = 0
        self.validated: list[int] = []
        self.body = nn.Sequential(nn.Conv3d(1, 1, 1), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.body(x)
        if self.epoch not in self.validated:
            self.validated.append(self.epoch)
        return torch.full_like(x, self.levels[self.epoch - 1])


def levelled(
    make: Callable, levels: list[float], interrupt: int | None = None, rate: float = 0.01, **options: Any
) -> Any:
    """Train one stage with at most one epoch for each level and three updates in each epoch."""
    torch.manual_seed(0)
    network = Level(levels)
    length, patience = options.pop("length", len(levels)), options.pop("patience", None)
    stage = Stage("one", network, adam(rate), length, options.pop("plateau", None), patience, "model.pt")
    engine = make([stage], batches(), VOLUMES, **options)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(network, "epoch", engine.state.epoch))
    run_until(engine, interrupt)
    return engine
