"""Checks of what a network is built with and of what it is given."""

from __future__ import annotations

from torch import Tensor


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ``ValueError`` that lists what is allowed, unless the value is."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def check_channels(image: Tensor, in_channels: int) -> None:
    """Raise a ``ValueError`` unless an image is ``(B, in_channels, x, y, z)``."""
    if image.dim() != 5 or image.shape[1] != in_channels:
        raise ValueError(f"expected an input (B, {in_channels}, x, y, z), found shape {list(image.shape)}")


def check_sizes(image: Tensor, divisor: int) -> None:
    """Raise a ``ValueError`` with the next size that fits, unless every spatial size is a multiple of ``divisor``."""
    for size in image.shape[2:]:
        if size % divisor != 0:
            fit = (size // divisor + 1) * divisor
            raise ValueError(f"spatial size {size} is not divisible by {divisor}; pad to {fit}")
