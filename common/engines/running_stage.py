"""Hold what a stage trains with: network, loss, optimiser and schedule, and how far it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..layers import training_form_of
from ..processes import broadcast
from .fine_tuning import FrozenEncoder
from .init_weights import load_init_weights
from .stages import Stage, trained_parameters
from .training_folder import TrainingFolder, change_rate, cpu_state, optimizer_settings

logger = logging.getLogger(__name__)


class RunningStage:
    """Begin or resume a stage, and change its learning rate and its frozen encoder from epoch to epoch.

    Args:
        stage: description of the stage.
        loss: loss of the training. A module is put on the device, and its parameters are trained too.
        device: device of the training.
        first_epoch: number of epochs before the stage.
        folder: folder of the training.
        state: training state to resume, or None for a stage that begins.

    Attributes:
        network: network in the form that trains; in a distributed run, its gradients are averaged.
        optimizer, lr_scheduler: optimiser, and its scheduler or None.
        weights_epoch: epoch of the weights that the stage has saved; -1 before the first ones.

    Raises:
        InputError: the state or the initial weights do not fit the stage.
    """

    def __init__(
        self,
        stage: Stage,
        loss: Callable,
        device: torch.device,
        first_epoch: int,
        folder: TrainingFolder,
        state: dict[str, Any] | None,
    ) -> None:
        self.stage = stage
        self.loss = loss
        self.device = device
        self.first_epoch = first_epoch
        self.weights_epoch = -1
        self.frozen_encoder: FrozenEncoder | None = None
        self.has_gradient: bool | None = None  # in an update of the epoch; None before the first backward pass
        self.still_epochs = 0  # consecutive epochs without any gradient
        self.full_rates: list[float] = []  # of the parameter groups, while the warm-up lowers them
        stage.prepare()
        if state is not None:
            folder.restore(stage.network, state["network"], "network")
        elif stage.fine_tuning.init_weights is not None:
            load_init_weights(stage.network, stage.fine_tuning.init_weights)
        stage.network.to(device)
        stage.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.network = self._trained_form()
        if isinstance(loss, nn.Module):
            if state is not None:
                folder.restore(loss, state["loss"], "loss")
            loss.to(device)
            broadcast(loss.state_dict().values())
        self.optimizer, self.lr_scheduler = stage.start_optimizer(self.loss_parameters)
        self.settings = optimizer_settings(self.optimizer, self.lr_scheduler) | stage.fine_tuning.settings()
        if state is not None:
            self._resume(folder, state)

    def _trained_form(self) -> nn.Module:
        form = training_form_of(self.stage.network)
        if idist.get_world_size() == 1:
            return form
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            form, device_ids=ids, find_unused_parameters=self.stage.find_unused_parameters
        )

    def _resume(self, folder: TrainingFolder, state: dict[str, Any]) -> None:
        folder.check_settings(self.settings, state["settings"])
        folder.restore(self.optimizer, state["optimizer"], "optimizer")
        if self.lr_scheduler is not None:
            folder.restore(self.lr_scheduler, state["lr_scheduler"], "lr_scheduler")
        change_rate(self.optimizer, self.lr_scheduler, self.settings, state["settings"])
        self.first_epoch = state["first_epoch"]
        self.weights_epoch = state["weights_epoch"]
        if idist.get_rank() == 0 and self.weights_epoch == state["epoch"]:
            folder.complete_weights(self.stage)

    @property
    def loss_parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters of the loss."""
        return trained_parameters(self.loss) if isinstance(self.loss, nn.Module) else []

    @property
    def rates(self) -> list[float]:
        """Return the learning rates of the parameter groups."""
        return [group["lr"] for group in self.optimizer.param_groups]

    @property
    def is_ended_by_schedule(self) -> bool:
        """Return whether the schedule ends the stage."""
        return getattr(self.lr_scheduler, "is_finished", False)

    def state(self) -> dict[str, Any]:
        """Return the part of the training state that belongs to the stage."""
        return {
            "first_epoch": self.first_epoch,
            "weights_epoch": self.weights_epoch,
            "network": cpu_state(self.stage.network),
            "loss": cpu_state(self.loss),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": None if self.lr_scheduler is None else self.lr_scheduler.state_dict(),
            "settings": self.settings,
        }

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or thaw the encoder, lower the learning rate in a warm-up, and give the loss the epoch.

        Args:
            epoch: epoch of the stage, from 1.
        """
        self.has_gradient = None
        tuning, name = self.stage.fine_tuning, self.stage.name
        frozen = epoch <= tuning.freeze_encoder
        if frozen != (self.frozen_encoder is not None):
            self.thaw()
            self.frozen_encoder = FrozenEncoder(self.stage.network) if frozen else None
            self.network = self._trained_form()  # DDP averages the gradients of those that it found when it was made
            logger.info("stage '%s': the encoder %s", name, "is frozen" if frozen else "trains from now on")
        if (factor := tuning.rate_factor(epoch)) < 1:
            self.full_rates = self.rates
            for group in self.optimizer.param_groups:
                group["lr"] *= factor
            rates = ", ".join(f"{rate:.3g}" for rate in self.rates)
            logger.info("stage '%s': warm-up, the learning rate is %s", name, rates)
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(epoch)

    def note_gradient(self) -> None:
        """Note whether the backward passes of the epoch had a gradient other than 0, until one had."""
        if not self.has_gradient:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
            self.has_gradient = any(bool(gradient.any()) for gradient in gradients) if gradients else None

    def learns_nothing(self) -> bool:
        """Return whether no update of two epochs in a row had a gradient other than 0.

        A softmax or sigmoid that is saturated everywhere has none, and the training never leaves this state.
        """
        self.still_epochs = self.still_epochs + 1 if self.has_gradient is False else 0
        return self.still_epochs > 1

    def end_epoch(self, train_loss: float, may_end: bool) -> None:
        """End a warm-up epoch and step the schedule.

        Args:
            train_loss: training loss of the epoch.
            may_end: whether the stage ends with its schedule, for the log.
        """
        # schedules start from the rate of the epoch before, and the training state holds it
        for group, rate in zip(self.optimizer.param_groups, self.full_rates):
            group["lr"] = rate
        self.full_rates = []
        if self.lr_scheduler is None:
            return
        if not isinstance(self.lr_scheduler, ReduceLROnPlateau):
            self.lr_scheduler.step()
            return
        before = self.rates[0]
        self.lr_scheduler.step(train_loss)
        if self.rates[0] < before:
            ending = ", which ends the stage" if may_end and self.is_ended_by_schedule else ""
            logger.info("stage '%s': plateau, the learning rate is now %.3g%s", self.stage.name, self.rates[0], ending)

    def thaw(self) -> None:
        """Let a frozen encoder train again."""
        if self.frozen_encoder is not None:
            self.frozen_encoder.thaw()
        self.frozen_encoder = None
