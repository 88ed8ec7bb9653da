"""Begin a training from the weights of another one: take what fits, adapt the first convolution, report the rest."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

from ..errors import InputError
from .checkpoints import read_weights

logger = logging.getLogger(__name__)


def load_init_weights(network: nn.Module, path: str | Path) -> None:
    """Load the entries of a flat state dict that fit a network, and log what happens to all others.

    An entry fits if name and shape match. A convolution of the image with another number of input channels is adapted,
    see :func:`adapt_channels`. All other entries of the network keep their initial values, such as a head of other
    classes.

    Args:
        network: network that gets the weights.
        path: file of a flat state dict, such as ``models/model.pt``.

    Raises:
        InputError: the file is missing or damaged, it holds anything else, or none of its weights fits. Biases and
            counters fit by chance, so that only an entry of two or more dimensions counts.
    """
    given, own = read_weights(path), network.state_dict()
    of_image = image_convolutions(network)
    taken: dict[str, Tensor] = {}
    adapted: list[str] = []
    anew: list[str] = []
    for key, value in own.items():
        found = given.get(key)
        if found is not None and found.shape == value.shape:
            taken[key] = found
        elif found is not None and key in of_image and _differ_in_channels_alone(found, value):
            taken[key] = adapt_channels(found.to(value.dtype), value.shape[1])
            way = "repeated" if value.shape[1] % found.shape[1] == 0 else "averaged"
            adapted.append(f"{key}: file {_shape(found)}, network {_shape(value)}, input channels {way}")
        else:
            anew.append(f"{key}: file {_shape(found)}, network {_shape(value)}")
    unused = [f"{key}: file {_shape(value)}, network nothing" for key, value in given.items() if key not in own]
    if not any(value.dim() > 1 for value in taken.values()):
        shown = "; ".join([*anew, *unused][:2])
        raise InputError(
            f"{path}: none of its {len(given)} entries fits the weights of {type(network).__name__} by name and shape "
            f"({shown}); give --init_weights a model.pt of the same kind of network, with the same widths"
        )
    network.load_state_dict({**own, **taken})
    lines = [f"init weights {path}: {len(taken)} of the network's {len(own)} entries loaded"]
    for title, entries in (("adapted", adapted), ("start anew", anew), ("not used", unused)):
        lines += [f"{title}, {len(entries)}:", *(f"  {entry}" for entry in entries)] if entries else []
    loaded = sum(own[key].numel() for key in taken)
    mostly_new = 2 * loaded < sum(value.numel() for value in own.values())
    logger.log(logging.WARNING if mostly_new else logging.INFO, "\n".join(lines))


def image_convolutions(network: nn.Module) -> set[str]:
    """Return the names of the weights of the convolutions that take the image.

    These are the first convolution, in the order of the modules, and the others of one group with as many input
    channels.
    """
    convolutions = {
        f"{name}.weight" if name else "weight": module
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1
    }
    first = next(iter(convolutions.values()), None)
    return {name for name, module in convolutions.items() if first and module.in_channels == first.in_channels}


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Return a convolution's weight for another number of input channels.

    For a multiple of the old number the old channels are repeated, else each new channel is their mean. Both are
    multiplied by old number / new number: an image with equal channels gives the response that it gave before.

    Args:
        weight: ``(out, old number, ...)``.
        channels: new number of input channels.

    Returns:
        ``(out, channels, ...)``.
    """
    old = weight.shape[1]
    source = weight if channels % old == 0 else weight.mean(1, keepdim=True)
    repeats = [1] * weight.dim()
    repeats[1] = channels // source.shape[1]
    return source.repeat(repeats) * (old / channels)


def _differ_in_channels_alone(one: Tensor, other: Tensor) -> bool:
    return one.dim() == other.dim() and one.shape[:1] == other.shape[:1] and one.shape[2:] == other.shape[2:]


def _shape(value: Tensor | None) -> str:
    return "nothing" if value is None else str(tuple(value.shape))
