"""Train OM-Net in one pass over its tasks (sections III-B and IV)."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...engines.fine_tuning import FROM_SCRATCH, FineTuning
from ...engines.stages import Stage
from ...errors import InputError
from .classes import CORE, ENHANCING, TASKS, TUMOUR

# Classes and their least share of a patch of an earlier stream, on which a task then trains too.
TRANSFER: dict[str, tuple[tuple[int, ...], float]] = {"tumour": (TUMOUR, 0.4), "enhancing": (CORE, 0.5)}  # eq. 1, 2


def one_pass(
    network: nn.Module,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    epochs: Sequence[int] = (1, 1, 18),
    transfer: bool = True,
    lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    max_epochs: int | None = None,
    fine_tuning: FineTuning = FROM_SCRATCH,
    enhancing_every: int = 1,
) -> list[Stage]:
    """Return one stage with a curriculum: the coarse task, then also the tumour, then also the enhancing tumour.

    The loss gets the logits and the classes of each task by name. With stochastic gradient descent, PyTorch's momentum
    gathers gradients, and Caffe's gathers gradients times the learning rate. The two differ for about a hundred updates
    after the rate changes.

    Args:
        network: network that takes the image and, for each task, the indices of its ``patches``.
        optimizer: callable (parameter groups) -> optimiser; see :func:`parameter_groups`.
        epochs: numbers of epochs with one, two and three tasks; ``(0, 0, 20)`` begins with all.
        transfer: whether a task also trains on patches of earlier streams with enough of its classes.
        lr_scheduler: callable (optimiser) -> scheduler, or None for a constant learning rate.
        max_epochs: number of epochs, if not the sum of ``epochs``; the last step of the curriculum takes the rest.
        fine_tuning: as for :class:`Stage`.
        enhancing_every: number of updates from one with the enhancing tumour's task to the next. The paper has half as
            many patches of this task as of the others: each network of its cascade has 20 epochs of its own patches, so
            that with 2 the third one makes half as many updates.

    Returns:
        the stage of a :class:`StagedTrainer`, for batches of a ``StreamsDataset`` with three streams; it writes
        ``model.pt``.

    Raises:
        InputError: ``epochs`` does not hold three numbers from 0, or all are 0.
    """
    epochs = tuple(epochs)
    if len(epochs) != len(TASKS) or min(epochs) < 0 or sum(epochs) == 0:
        raise InputError(
            f"epochs {list(epochs)}: expected three numbers from 0, not all 0: epochs with one, two and three tasks"
        )
    return [
        Stage(
            "one-pass",
            network,
            optimizer,
            sum(epochs) if max_epochs is None else max_epochs,
            lr_scheduler,
            weights="model.pt",
            parameter_groups=parameter_groups,
            prepare_batch=TaskBatch(epochs, transfer, enhancing_every),
            find_unused_parameters=any(epochs[:-1]) or enhancing_every > 1,
            fine_tuning=fine_tuning,
        )
    ]


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Return three groups with the rates and decays of the released network description.

    Weights and scales have the learning rate and the weight decay of the optimiser. The shifts of batch normalisation
    have twice the rate and the same decay. Other biases have twice the rate and no decay.
    """
    weights: list[nn.Parameter] = []
    shifts: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in network.modules():
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (weights if name != "bias" else shifts if normalises else biases).append(parameter)
    return [
        {"params": weights, "lr_scale": 1.0},
        {"params": shifts, "lr_scale": 2.0},
        {"params": biases, "lr_scale": 2.0, "weight_decay": 0.0},
    ]


class TaskBatch:
    """Make the inputs of network and loss from a batch with patches of three streams.

    The patches of the streams in training go in one batch, stream after stream. A task trains on its own stream and,
    with ``transfer``, on those patches of earlier streams that have enough of its classes. A task that does not take
    part in an update has no patches.

    Args:
        epochs: numbers of epochs with one, two and three tasks.
        transfer: whether patches also train later tasks.
        enhancing_every: number of updates from one with the enhancing tumour's task to the next, from the first update
            of an epoch on.
    """

    def __init__(self, epochs: Sequence[int], transfer: bool, enhancing_every: int = 1) -> None:
        self.ends = list(itertools.accumulate(epochs))
        self.transfer = transfer
        self.enhancing_every = enhancing_every

    def tasks_in(self, epoch: int, update: int) -> int:
        """Return the number of tasks that an update trains; epoch and update count from 1."""
        tasks = min(bisect_left(self.ends, epoch), len(TASKS) - 1) + 1
        return min(tasks, len(TASKS) - 1) if (update - 1) % self.enhancing_every else tasks

    def __call__(
        self,
        batch: dict[str, Tensor],
        device: torch.device | None = None,
        non_blocking: bool = False,
        *,
        epoch: int,
        update: int = 1,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, list[Tensor]]]:
        """Return the image, the classes by task and the ``patches``.

        Args:
            batch: ``image`` ``(B, 3, C, x, y, z)`` and ``label`` ``(B, 3, 1, x, y, z)``.
            device, non_blocking, kwargs: as for MONAI's ``prepare_batch``.
            epoch: epoch of the stage, from 1.
            update: update of the epoch, from 1.
        """
        tasks = self.tasks_in(epoch, update)
        image, label = (torch.as_tensor(batch[key])[:, :tasks] for key in ("image", "label"))
        label = label[:, :, 0].transpose(0, 1)  # (tasks, B, x, y, z)
        patches = [p.to(device, non_blocking=non_blocking) for p in self._patches(label)]
        # the transfer moves the compact types of the cache, so the cast comes after it
        label = label.flatten(0, 1).to(device, non_blocking=non_blocking, **kwargs)
        image = image.to(device, non_blocking=non_blocking, **kwargs).transpose(0, 1).flatten(0, 1).float()
        classes = (label, label, (label == ENHANCING).to(label.dtype))
        targets = {task: values[chosen] for task, values, chosen in zip(TASKS, classes, patches)}
        return image.contiguous(memory_format=torch.channels_last_3d), targets, (), {"patches": patches}

    def _patches(self, label: Tensor) -> list[Tensor]:
        """Return, for each task, the indices of its patches in the batch; ``label`` is ``(streams, B, x, y, z)``."""
        streams, size = label.shape[:2]
        indices = torch.arange(streams * size, device=label.device).view(streams, size)
        patches = []
        for task, name in enumerate(TASKS):
            chosen = indices[task : task + 1].flatten()  # empty before the task joins
            if self.transfer and 0 < task < streams:
                classes, share = TRANSFER[name]
                before = label[:task].flatten(0, 1).flatten(1)
                least = math.ceil(share * before.shape[1] - 1e-6)  # 0.4 * 5 may come out above 2
                enough = torch.isin(before, before.new_tensor(classes)).sum(1) >= least
                chosen = torch.cat([indices[:task].flatten()[enough], chosen])
            patches.append(chosen)
        return patches
