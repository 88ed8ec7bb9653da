"""Exchange values between the processes of a distributed run."""

from __future__ import annotations

from collections.abc import Iterable

import ignite.distributed as idist
import torch
from torch import Tensor, nn


def broadcast(tensors: Iterable[Tensor]) -> None:
    """Copy tensors from the first process to the others, in place."""
    if idist.get_world_size() > 1:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0)


def gather(items: list) -> list:
    """Return the items of all processes as one list, in the order of the processes."""
    if idist.get_world_size() == 1:
        return items
    parts: list[list] = [[] for _ in range(idist.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over all processes, in place. A missing gradient counts as 0."""
    if idist.get_world_size() > 1:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= idist.get_world_size()
