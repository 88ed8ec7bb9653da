"""Measure the time and the memory of an update of a training."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from ..layers import TwoForms
from .choices import Cost

REPEATS = 2


def update_cost(parser: ConfigParser, patch: list[int], batch: int) -> Cost:
    """Return the time and the memory of an update with random patches.

    The memory is counted on shapes alone: weights with their gradients and the state of the optimiser, the activations
    that the backward pass needs, and one more copy of the largest.

    Args:
        parser: training config; its network, loss and precision are used.
        patch: size ``(x, y, z)`` in voxels.
        batch: patches of an update.
    """
    parser.ref_resolver.reset()
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    device = torch.device(parser.get_parsed_content("device"))
    bfloat16 = bool(parser.get_parsed_content("amp"))
    shape = (batch, len(parser["modalities"]), *patch)
    memory = _memory(network, shape, device)
    network = (network.training_form() if isinstance(network, TwoForms) else network).to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
    targets = _targets(parser, shape, device)
    seconds = []
    for _ in range(REPEATS):
        image = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)
        begin = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            output = network(image)
        value = loss(output, targets if isinstance(output, dict) else targets["seg"])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return Cost(min(seconds), memory)


def _targets(parser: ConfigParser, shape: tuple[int, ...], device: torch.device) -> dict[str, torch.Tensor]:
    labels = len(parser["labels"])
    targets = {"seg": torch.randint(0, 1 + labels, (shape[0], 1, *shape[2:]), device=device).float()}
    if classes := parser.get("classes"):
        targets["class"] = torch.randint(0, len(classes), (shape[0],), device=device)
    return targets


def _memory(network: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """Return the bytes of weights, gradients, state of AdamW, and saved activations, from shapes alone."""
    form = copy.deepcopy(network).to("meta").train()
    form = form.training_form() if isinstance(form, TwoForms) else form
    saved: dict[int, int] = {}
    kept: list[Any] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        kept.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        form(torch.empty(shape, device="meta"))
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return 4 * weights + sum(saved.values()) + max(saved.values())
