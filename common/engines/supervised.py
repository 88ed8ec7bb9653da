"""Train a network in one stage, as MA-MTLN, MPU-Net and MultiR-Net do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .batches import LabelAndClass
from .fine_tuning import FROM_SCRATCH, FineTuning
from .stages import Stage


def supervised(
    network: nn.Module,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    max_epochs: int,
    lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    patience: int | None = None,
    fine_tuning: FineTuning = FROM_SCRATCH,
) -> list[Stage]:
    """Return the one stage that trains the whole network in its training form and writes ``model.pt``.

    The loss gets the network's outputs by name and the targets of :class:`LabelAndClass`.

    Args:
        network: network that returns a dictionary of tensors in its training form.
        optimizer, max_epochs, lr_scheduler, patience, fine_tuning: as for :class:`Stage`.
    """
    return [
        Stage(
            "training",
            network,
            optimizer,
            max_epochs,
            lr_scheduler,
            patience,
            "model.pt",
            prepare_batch=LabelAndClass(),
            fine_tuning=fine_tuning,
        )
    ]
