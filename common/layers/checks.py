"""Check the options of a network and its input; each error says what was found and what would fit."""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError


def check_option(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ``ValueError`` that lists the allowed values, unless ``value`` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}")


def check_channels(image: Tensor, in_channels: int) -> None:
    """Raise an ``InputError`` unless the image has the shape ``(B, in_channels, x, y, z)``."""
    if image.dim() != 5 or image.shape[1] != in_channels:
        raise InputError(f"expected an input (B, {in_channels}, x, y, z), found shape {list(image.shape)}")


def check_sizes(image: Tensor, divisors: list[int]) -> None:
    """Raise an ``InputError`` that names the next size that fits, unless the divisors divide the sizes x, y, z."""
    for size, divisor in zip(image.shape[2:], divisors):
        if size % divisor != 0:
            fit = (size // divisor + 1) * divisor
            raise InputError(f"roi_size or spatial size {size} is not divisible by {divisor}; pad to {fit}")


def check_maps_and_label(maps: Tensor, label: Tensor, name: str) -> None:
    """Check the inputs of a loss of several classes.

    Args:
        maps: ``(B, C, x, y, z)``, background first, C at least 2.
        label: ``(B, 1, x, y, z)``.
        name: what the maps are, for the message.

    Raises:
        InputError: the shapes differ from these.
    """
    if maps.shape[1] < 2 or label.shape != (len(maps), 1, *maps.shape[2:]):
        raise InputError(
            f"{name} of shape {list(maps.shape)} with a label of shape {list(label.shape)}: "
            "expected (B, 2 or more, x, y, z) and (B, 1, x, y, z)"
        )
