"""Describe how a training begins: from which weights, with a frozen encoder, with a rising learning rate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..files import sha256
from ..record import RECORD_FILE, record_of
from .checkpoints import read_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuning:
    """Describe the beginning of a stage; the defaults change nothing.

    Args:
        init_weights: file of a flat state dict that the network begins from, see
            :func:`common.engines.init_weights.load_init_weights`; None keeps the initial weights.
        freeze_encoder: number of epochs in which the encoder keeps its weights and running statistics.
        warm_up: number of epochs N in which the learning rate rises linearly; epoch e has e / (N + 1) of the
            schedule's rate. The schedule counts these epochs too.

    Raises:
        InputError: a number is below 0; the file is missing, damaged or holds anything else.
    """

    init_weights: str | Path | None = None
    freeze_encoder: int = 0
    warm_up: int = 0

    def __post_init__(self) -> None:
        for name in ("freeze_encoder", "warm_up"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: expected a number of epochs from 0")
        if self.init_weights is not None:
            read_weights(self.init_weights)  # a wrong file is refused before the cases are cached
            if record_of(self.init_weights) is None:
                logger.warning(
                    "init weights %s: no %s beside it, so an evaluation cannot know which cases have trained it",
                    self.init_weights,
                    RECORD_FILE,
                )

    def rate_factor(self, epoch: int) -> float:
        """Return the factor on the learning rate in an epoch of the stage, from 1."""
        return min(1.0, epoch / (self.warm_up + 1))

    def settings(self) -> dict[str, int]:
        """Return what a resumed stage must have in common with the interrupted one, without defaults."""
        return {name: value for name in ("freeze_encoder", "warm_up") if (value := getattr(self, name))}

    def origin(self) -> dict[str, Any]:
        """Return what the record says of the initial weights: their file and the cases that they have seen."""
        if self.init_weights is None:
            return {"init_weights": None, "init_cases": None}
        path = Path(self.init_weights)
        record = record_of(path)
        cases = None if record is None else record.seen_cases
        return {"init_weights": {"file": path.name, "sha256": sha256(path)}, "init_cases": cases}


FROM_SCRATCH = FineTuning()


def encoder_of(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network's encoder, which its ``encoder_modules`` names (see :class:`TwoForms`).

    Raises:
        InputError: the network names none.
    """
    names: Any = getattr(network, "encoder_modules", ())
    if not names:
        raise InputError(
            f"{type(network).__name__} does not say which modules are its encoder (encoder_modules); leave "
            "--freeze_encoder at 0"
        )
    return [network.get_submodule(name) for name in names]


class FrozenEncoder:
    """Keep weights and running statistics of a network's encoder as they are, until :meth:`thaw`.

    Args:
        network: network with ``encoder_modules``; its training form, which shares the modules, is frozen with it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.modules = encoder_of(network)
        self.parameters = [p for module in self.modules for p in module.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        self.hook = network.register_forward_pre_hook(self._use_running_statistics)  # after every network.train()

    def _use_running_statistics(self, *args: Any) -> None:
        for module in self.modules:
            module.eval()

    def thaw(self) -> None:
        """Let the encoder train again."""
        self.hook.remove()
        for parameter in self.parameters:
            parameter.requires_grad_(True)
