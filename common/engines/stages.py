"""Describe the stages of a training: network, optimiser, learning rate and length of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .fine_tuning import FROM_SCRATCH, FineTuning, encoder_of


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a network that require a gradient."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def total_epochs(stages: Sequence[Stage]) -> int:
    """Return the largest number of epochs of all stages together."""
    return sum(stage.max_epochs for stage in stages)


def _do_nothing() -> None:
    pass


@dataclass
class Stage:
    """Describe one part of a training, which starts its own optimiser and its own schedule.

    Args:
        name: name in logs.
        network: network that the stage trains, validates and saves. Its parameters without ``requires_grad`` stay as
            they are. A network of two forms (:class:`TwoForms`) trains in its training form, and validates as it is.
        optimizer: callable (parameters or parameter groups) -> optimiser, such as a partial of ``torch.optim.Adam``.
        max_epochs: largest number of epochs.
        lr_scheduler: callable (optimiser) -> scheduler of ``torch.optim.lr_scheduler``, which steps after each epoch; a
            ``ReduceLROnPlateau`` gets the training loss of the epoch. A scheduler with a true attribute
            ``is_finished`` ends the stage. None keeps the learning rate.
        patience: number of epochs without a better validation that end the stage; None trains to the end.
        weights: file name, in the folder of the checkpoints, of the weights with the best validation. None writes no
            file: the next stage goes on with the last weights.
        channels: input channels that the network sees; None for all.
        prepare: callable () -> None, called when the stage begins and, before the state is restored, when it resumes.
        parameter_groups: callable (network) -> parameters or parameter groups for ``optimizer``. The learning rate of a
            group with ``lr_scale`` is multiplied by it.
        prepare_batch: callable that makes a training batch, as MONAI's argument of this name. It also gets the keywords
            ``epoch``, the epoch of the stage, and ``update``, the update of the epoch; both count from 1. None makes
            image and label, as validation does.
        find_unused_parameters: whether some updates leave parameters without a gradient, as for
            ``DistributedDataParallel``.
        fine_tuning: weights that the network begins from, epochs with a frozen encoder, epochs of warm-up.

    Raises:
        InputError: the encoder is to be frozen, and the network does not say which modules it is.
    """

    name: str
    network: nn.Module
    optimizer: Callable[[Any], torch.optim.Optimizer]
    max_epochs: int
    lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    patience: int | None = None
    weights: str | None = None
    channels: Sequence[int] | None = None
    prepare: Callable[[], None] = _do_nothing
    parameter_groups: Callable[[nn.Module], Iterable] = trained_parameters
    prepare_batch: Callable[..., tuple] | None = None
    find_unused_parameters: bool = False
    fine_tuning: FineTuning = FROM_SCRATCH

    def __post_init__(self) -> None:
        if self.fine_tuning.freeze_encoder:
            encoder_of(self.network)

    def start_optimizer(self, loss_parameters: Sequence[nn.Parameter] = ()) -> tuple[torch.optim.Optimizer, Any]:
        """Return a new optimiser and its scheduler, or None for a constant learning rate.

        Args:
            loss_parameters: trained parameters of the loss, which get no weight decay.
        """
        optimizer = self.optimizer(self.parameter_groups(self.network))
        if loss_parameters:
            optimizer.add_param_group({"params": list(loss_parameters), "weight_decay": 0.0})
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        return optimizer, None if self.lr_scheduler is None else self.lr_scheduler(optimizer)
