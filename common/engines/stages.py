"""The stages of a training: network, optimiser, learning rate and length of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import InputError


def _nothing() -> None:
    pass


def adam(
    network: nn.Module, learning_rate: float, weight_decay: float = 0.0, amsgrad: bool = False
) -> torch.optim.Optimizer:
    """Adam over the parameters that are trained."""
    trained = (p for p in network.parameters() if p.requires_grad)
    return torch.optim.Adam(trained, lr=learning_rate, weight_decay=weight_decay, amsgrad=amsgrad)


@dataclass(frozen=True)
class Plateau:
    """Lower the learning rate where the training loss no longer falls, and end with it.

    The loss is that of each epoch, over all processes, as an exponential moving average that begins with the first.

    Args:
        factor: what the learning rate is multiplied by.
        patience: epochs without a new least average that are waited for; one more lowers the rate.
        threshold: how far, absolutely, a new least average lies below the last one.
        smoothing: share of the average before in the new one; 0 takes the epoch's loss as it is.
        lowest: the stage ends when the learning rate is below this.

    Raises:
        InputError: a value is outside its range.
    """

    factor: float = 0.2
    patience: int = 10
    threshold: float = 1e-3
    smoothing: float = 0.93
    lowest: float = 1e-9

    def __post_init__(self) -> None:
        if not (0 < self.factor < 1 and 0 <= self.smoothing < 1):
            raise InputError(
                f"plateau of factor {self.factor} and smoothing {self.smoothing}: expected a factor above 0 and a "
                f"smoothing from 0, both below 1"
            )
        if min(self.patience, self.threshold, self.lowest) < 0:
            raise InputError(
                f"plateau of patience {self.patience}, threshold {self.threshold} and lowest {self.lowest}: expected "
                f"no negative number"
            )


@dataclass
class Stage:
    """A part of a training.

    Args:
        name: for logs.
        network: trained in this stage; its parameters without ``requires_grad`` stay as they are. One whose attribute
            ``dense`` is set is validated as it is and trained in its other form, of the same parameters.
        learning_rate: of every parameter group, times the group's ``lr_scale`` if it has one; or a function that gives
            it for each epoch of the stage, from 1.
        max_epochs: length at most.
        patience: stop after this many epochs without a better validation; None trains to the end.
        weights: file name, in the trainer's folder, of the weights with the best validation; None keeps the last ones
            in the network only, for the next stage to go on with.
        channels: input channels that the network sees; None for all.
        prepare: called when the stage begins and when it resumes, before the state is restored.
        optimizer: builds the optimiser, which starts afresh with the stage, from the network and the first rate.
        prepare_batch: makes a training batch, as MONAI's argument of this name; it is also told the ``epoch`` of the
            stage, from 1. None gives image and label, as validation has them in any case.
        find_unused_parameters: whether some parameters are not trained in every update, which several processes must
            know.
        plateau: lowers the learning rate, which is then that of the first epoch, and may end the stage; None leaves
            both to ``learning_rate`` and ``max_epochs``.
    """

    name: str
    network: nn.Module
    learning_rate: float | Callable[[int], float]
    max_epochs: int
    patience: int | None = None
    weights: str | None = None
    channels: Sequence[int] | None = None
    prepare: Callable[[], None] = _nothing
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer] = adam
    prepare_batch: Callable[..., tuple] | None = None
    find_unused_parameters: bool = False
    plateau: Plateau | None = None

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch of the stage."""
        return self.learning_rate(epoch) if callable(self.learning_rate) else self.learning_rate
