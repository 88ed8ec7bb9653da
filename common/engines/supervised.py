"""Training in one stage, that of MA-MTLN, MPU-Net and MultiR-Net."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .staged_trainer import ImageAndLabel
from .stages import Plateau, Stage, adam


def supervised(
    network: nn.Module,
    max_epochs: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    halve_every: int | None = None,
    plateau: Plateau | None = None,
    patience: int | None = None,
) -> list[Stage]:
    """Adam over the whole network, at a rate that stays, is halved at fixed epochs or follows the training loss.

    The loss gets the network's outputs and the targets ``seg`` ``(B, 1, x, y, z)``, float, and, where the batches have
    a ``class``, ``class`` ``(B,)``, int64.

    Args:
        network: returns a dictionary of tensors, at least in the form for training.
        max_epochs: length at most.
        learning_rate: of the first epoch.
        weight_decay: added to the gradient, for all parameters of the network.
        amsgrad: let Adam's steps follow the largest second moment so far.
        halve_every: the rate is halved in each epoch whose number, from 1, this divides; None never halves it.
        plateau: lowers the rate and ends the training with it, as MA-MTLN's does; None leaves it.
        patience: stop after this many epochs without a better validation; None trains to the end.

    Returns:
        the stage of a :class:`StagedTrainer`; it writes ``model.pt``.

    Raises:
        InputError: both ``halve_every`` and ``plateau`` are given, or ``halve_every`` is below 1.
    """
    if halve_every is not None and plateau is not None:
        raise InputError("halve_every and plateau both lower the learning rate; set one of them to null")
    if halve_every is not None and halve_every < 1:
        raise InputError(f"halve_every is {halve_every}: expected a number of epochs from 1, or null")
    return [
        Stage(
            "training",
            network,
            learning_rate if halve_every is None else functools.partial(_halved, learning_rate, halve_every),
            max_epochs,
            patience,
            "model.pt",
            optimizer=functools.partial(adam, weight_decay=weight_decay, amsgrad=amsgrad),
            prepare_batch=LabelAndClass(),
            plateau=plateau,
        )
    ]


class LabelAndClass:
    """Image ``(B, C, x, y, z)``, channels-last, and the targets of a batch, on the device.

    The targets are ``seg`` ``(B, 1, x, y, z)``, float32, and, if the batch has a ``class``, ``class`` ``(B,)``, int64.
    """

    def __init__(self) -> None:
        self.image_and_label = ImageAndLabel(None)

    def __call__(
        self,
        batch: dict[str, Any],
        device: torch.device | None = None,
        non_blocking: bool = False,
        *,
        epoch: int,  # a stage tells it; batches are the same in all
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = self.image_and_label(batch, device, non_blocking, **kwargs)
        targets = {"seg": label}
        if "class" in batch:
            classes = torch.as_tensor(batch["class"])
            targets["class"] = classes.to(device, non_blocking=non_blocking, **kwargs).long()
        return image, targets


def _halved(learning_rate: float, every: int, epoch: int) -> float:
    return learning_rate * 0.5 ** (epoch // every)
