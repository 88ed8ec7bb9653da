"""Measure the time and the memory of an update of a training."""

from __future__ import annotations

import time

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose

from ..doctor.memory import update_memory
from ..layers import TwoForms
from .choices import Cost

REPEATS = 2


def update_cost(parser: ConfigParser, patch: list[int], batch: int, most: int) -> Cost:
    """Return the time and the memory of an update with random patches.

    The memory is counted on shapes alone, in float32. The time is that of the fastest of two updates, with the random
    transforms of its patches.

    Args:
        parser: training config; its network, loss and precision are used.
        patch: size ``(x, y, z)`` in voxels.
        batch: patches of an update.
        most: bytes that an update may take. One that needs more is not made, and its time is 0.
    """
    parser.ref_resolver.reset()
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    device = torch.device(parser.get_parsed_content("device"))
    bfloat16 = bool(parser.get_parsed_content("amp"))
    shape = (batch, len(parser["modalities"]), *patch)
    network = network.training_form() if isinstance(network, TwoForms) else network
    memory = update_memory(network, torch.empty(shape, device="meta"))
    if memory > most:
        return Cost(0.0, memory)
    network = network.to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
    targets = _targets(parser, shape, device)
    augment = Compose(parser.get_parsed_content("augment"))
    case = {"image": MetaTensor(torch.randn(shape[1:])), "label": MetaTensor(targets["seg"][0].cpu())}
    seconds = []
    for _ in range(REPEATS):
        image = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last_3d)
        begin = time.perf_counter()
        for _ in range(batch):
            augment(dict(case))
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
