"""One-pass multi-task training, that of OM-Net (sections III-B and IV)."""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...engines.stages import Stage
from ...errors import InputError

TUMOUR, CORE, ENHANCING = (1, 2, 3), (1, 3), 3  # classes of the labels
# Tasks in the order of their streams; the classes and the share of them that bring in patches of the streams before.
TASKS: dict[str, tuple[tuple[int, ...], float]] = {
    "coarse": ((), 1.0),
    "tumour": (TUMOUR, 0.4),  # eq. 1
    "enhancing": (CORE, 0.5),  # eq. 2
}


def one_pass(
    network: nn.Module,
    epochs: Sequence[int] = (1, 1, 18),
    transfer: bool = True,
    learning_rate: float = 1e-3,
    halve_every: int = 4,
    momentum: float = 0.99,
    weight_decay: float = 5e-4,
    max_epochs: int | None = None,
) -> list[Stage]:
    """A curriculum of the coarse task, then also the tumour, then also the enhancing tumour, in one stage.

    The loss gets the logits and the classes of each task by name. Here the learning rate is not a part of what momentum
    gathers, as it is in Caffe; the two differ for about a hundred updates after each halving.

    Args:
        network: takes the image and, per task, the indices of its ``patches``.
        epochs: of the one, the two and the three tasks; ``(0, 0, 20)`` begins with all.
        transfer: train a task also on patches of the streams before, where they have enough of its classes.
        learning_rate: of the first epoch, over all steps; twice this for biases and shifts.
        halve_every: epochs after which the learning rate is halved.
        momentum: of stochastic gradient descent.
        weight_decay: of all but the biases of convolutions and fully connected layers.
        max_epochs: length, where it is not the sum of ``epochs``; the last step of the curriculum takes what is left.

    Returns:
        the stage of a :class:`StagedTrainer`, for batches of a ``StreamsDataset`` of three streams; it
        writes ``model.pt``.

    Raises:
        InputError: ``epochs`` are not three numbers, or all 0.
    """
    epochs = tuple(epochs)
    if len(epochs) != len(TASKS) or min(epochs) < 0 or sum(epochs) == 0:
        raise InputError(f"epochs {list(epochs)}: expected three numbers, those of one, of two and of three tasks")
    return [
        Stage(
            "one-pass",
            network,
            functools.partial(_halved, learning_rate, halve_every),
            sum(epochs) if max_epochs is None else max_epochs,
            weights="model.pt",
            optimizer=functools.partial(sgd, momentum=momentum, weight_decay=weight_decay),
            prepare_batch=TaskBatch(epochs, transfer),
            find_unused_parameters=any(epochs[:-1]),
        )
    ]


def sgd(network: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """Stochastic gradient descent with the rates and decays of the released network description.

    Weights and scales have the learning rate and the decay; the shifts of batch normalisation twice the rate and the
    decay; other biases twice the rate and no decay.
    """
    weights: list[nn.Parameter] = []
    shifts: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in network.modules():
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (weights if name != "bias" else shifts if normalises else biases).append(parameter)
    groups = [
        {"params": weights, "lr_scale": 1.0, "weight_decay": weight_decay},
        {"params": shifts, "lr_scale": 2.0, "weight_decay": weight_decay},
        {"params": biases, "lr_scale": 2.0, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum)


class TaskBatch:
    """What the network and the loss get from a batch of patches of three streams.

    The patches of the streams in training go in one batch, stream after stream. A task is trained on its own stream
    and, with ``transfer``, on those patches of the streams before that have enough of its classes; a task that is not
    in training yet has none.

    Args:
        epochs: of the one, the two and the three tasks.
        transfer: whether patches train other tasks than their own.
    """

    def __init__(self, epochs: Sequence[int], transfer: bool) -> None:
        self.ends = list(itertools.accumulate(epochs))
        self.transfer = transfer

    def __call__(
        self,
        batch: dict[str, Tensor],
        device: torch.device | None = None,
        non_blocking: bool = False,
        *,
        epoch: int,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, list[Tensor]]]:
        """Image, classes per task and ``patches`` of a batch with ``image`` and ``label`` ``(B, 3, C, x, y, z)``."""
        tasks = min(bisect_left(self.ends, epoch), len(TASKS) - 1) + 1
        image, label = (torch.as_tensor(batch[key])[:, :tasks] for key in ("image", "label"))
        label = label[:, :, 0].transpose(0, 1)  # (tasks, B, x, y, z)
        patches = [p.to(device, non_blocking=non_blocking) for p in self._patches(label)]
        # compact types travel; the cast follows on the device
        label = label.flatten(0, 1).to(device, non_blocking=non_blocking, **kwargs)
        image = image.to(device, non_blocking=non_blocking, **kwargs).transpose(0, 1).flatten(0, 1).float()
        classes = (label, label, (label == ENHANCING).to(label.dtype))
        targets = {task: values[chosen] for task, values, chosen in zip(TASKS, classes, patches)}
        return image.contiguous(memory_format=torch.channels_last_3d), targets, (), {"patches": patches}

    def _patches(self, label: Tensor) -> list[Tensor]:
        """Per task the indices of its patches among those of the streams in training, ``(streams, B, x, y, z)``."""
        streams, size = label.shape[:2]
        indices = torch.arange(streams * size, device=label.device).view(streams, size)
        patches = []
        for task, (classes, share) in enumerate(TASKS.values()):
            chosen = indices[task : task + 1].flatten()  # none while the task is not in training
            if self.transfer and 0 < task < streams:
                before = label[:task].flatten(0, 1).flatten(1)
                least = math.ceil(share * before.shape[1] - 1e-6)  # 0.4 of a number that it divides may come out higher
                enough = torch.isin(before, before.new_tensor(classes)).sum(1) >= least
                chosen = torch.cat([indices[:task].flatten()[enough], chosen])
            patches.append(chosen)
        return patches


def _halved(learning_rate: float, every: int, epoch: int) -> float:
    return learning_rate * 0.5 ** ((epoch - 1) // every)
