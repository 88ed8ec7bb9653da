"""Make batches of the three streams and the stage that trains on them."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import Tensor

from common.methods.omnet import OMNet, one_pass

TASKS = ("coarse", "tumour", "enhancing")
CPU = torch.device("cpu")
PATCH = (32, 32, 16)  # 16384 voxels, as in the paper
SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.99, weight_decay=5e-4)


def narrow(attention: str | None = "cga", **options: Any) -> OMNet:
    return OMNet(attention=attention, **{"channels": (8, 6), "bn_momentum": 0.1, **options})


def collated(labels: list[list[Tensor]]) -> dict[str, Tensor]:
    """Make a batch from label patches, one of each stream in a sample; the first image voxel is 10 sample + stream."""
    label = torch.stack([torch.stack(sample) for sample in labels])[:, :, None]
    image = torch.zeros(*label.shape[:2], 4, *label.shape[3:], dtype=torch.float16)
    for sample, stream in itertools.product(range(len(label)), range(3)):
        image[sample, stream, 0, 0, 0, 0] = 10 * sample + stream
    return {"image": image, "label": label}


def patch(size: tuple[int, ...] = PATCH, **voxels: int) -> Tensor:
    """Make a patch of class 4 with some voxels of classes 1, 2 and 3, ``c1``, ``c2``, ``c3``, at random places."""
    flat = torch.full((torch.Size(size).numel(),), 4, dtype=torch.uint8)
    order, first = torch.randperm(len(flat)), 0
    for name, number in voxels.items():
        flat[order[first : first + number]] = int(name[1])
        first += number
    return flat.view(size)


def prepared(batch: dict[str, Tensor], epoch: int = 3, **options: Any) -> tuple[Tensor, dict, list[Tensor]]:
    (stage,) = one_pass(narrow(), SGD, **options)
    image, targets, args, kwargs = stage.prepare_batch(batch, CPU, False, epoch=epoch)
    assert args == () and kwargs.keys() == {"patches"}
    return image, targets, kwargs["patches"]


def chosen(batch: dict[str, Tensor], **options: Any) -> list[list[int]]:
    return [patches.tolist() for patches in prepared(batch, **options)[2]]


def healthy(samples: int = 2) -> dict[str, Tensor]:
    return collated([[patch((4, 4, 2)) for _ in range(3)] for _ in range(samples)])
