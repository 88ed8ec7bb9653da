"""Record the shapes in a network: what each of its modules returns for one window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recording:
    """Hold what one pass through a network returned.

    Args:
        shapes: shape ``(1, C, x, y, z)`` or ``(1, C)`` of the result of each module by its name.
        parameters: number of trainable parameters of the network.
        window: spatial size of the image.
    """

    shapes: dict[str, tuple[int, ...]]
    parameters: int
    window: tuple[int, ...]

    def channels(self, module: str) -> int:
        """Return the number of channels that a module returns."""
        return self.shapes[module][1]

    def size(self, module: str) -> str:
        """Return the spatial size of what a module returns, such as ``"64 × 64 × 12"``."""
        return sized(self.shapes[module][2:])


def sized(size: Sequence[int]) -> str:
    """Return a spatial size as text, such as ``"64 × 64 × 12"``."""
    return " \N{MULTIPLICATION SIGN} ".join(map(str, size))


def record(build: Callable[[], nn.Module], in_channels: int, window: Sequence[int]) -> Recording:
    """Build a network and pass one window through its training form, without memory for values.

    Args:
        build: class or function that builds the network.
        in_channels: channels of the image.
        window: spatial size of the image.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[name] = tuple(output.shape)

    with torch.device("meta"), torch.no_grad():
        network = build().train()
        for name, module in network.named_modules():
            module.register_forward_hook(partial(keep, name))
        network(torch.empty(1, in_channels, *window))
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Recording(shapes, parameters, tuple(window))
