"""Train MMFNet by self-transfer (sections III-C and IV-C) or in one stage."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...engines.checkpoints import load_file
from ...engines.fine_tuning import FROM_SCRATCH, FineTuning
from ...engines.stages import Stage
from ...errors import InputError, UsageError

if TYPE_CHECKING:
    from . import MMFNet

logger = logging.getLogger(__name__)


def training_stages(
    network: MMFNet,
    single_modality_network: Callable[[], MMFNet],
    optimizer: Callable[..., torch.optim.Optimizer],
    modalities: Sequence[str],
    channels: Sequence[int],
    ckpt_dir: str | Path,
    self_transfer: bool = True,
    lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    max_epochs: int = 100,
    warm_up_epochs: int = 5,
    patience: int = 10,
    fine_tuning_rate: float = 1e-4,
    fine_tuning: FineTuning = FROM_SCRATCH,
) -> list[Stage]:
    """Return a stage for each modality, then warm-up and fine-tuning; or one stage alone.

    The warm-up trains fusion blocks and decoder with frozen encoders, and fine-tuning trains all. Each stage starts its
    own optimiser and schedule.

    Args:
        network: multi-modality network.
        single_modality_network: callable () -> network of one modality, with the encoder of ``network``.
        optimizer: callable (parameters) -> optimiser; fine-tuning calls it with ``lr=fine_tuning_rate``.
        modalities: names of the modalities of a case.
        channels: indices of the modalities that the network sees, in the order of its input channels.
        ckpt_dir: folder of the trainer, which holds the single-modality weights.
        self_transfer: whether to train by self-transfer; if not, one stage trains ``network``, from scratch or
            from the weights of ``fine_tuning``.
        lr_scheduler: callable (optimiser) -> scheduler, or None for a constant learning rate in each stage.
        max_epochs: largest number of epochs of each single-modality network, and of warm-up and fine-tuning together.
            If it is not above ``warm_up_epochs``, the warm-up takes all of them and writes the final weights.
        warm_up_epochs: number of epochs with frozen encoders.
        patience: number of epochs without a better validation that end a stage; the warm-up has no early stopping.
        fine_tuning_rate: learning rate of fine-tuning.
        fine_tuning: as for :class:`Stage`. With self-transfer every stage has its warm-up of the learning rate, and the
            rest is refused: self-transfer makes the encoders itself, and freezes them for ``warm_up_epochs``.

    Returns:
        stages of a :class:`StagedTrainer`; the last one writes ``model.pt``.

    Raises:
        InputError: a channel has no modality, or the encoders of the two networks differ.
        UsageError: self-transfer with initial weights or with a number of epochs to freeze the encoder.
    """
    if not self_transfer:
        name = "from scratch" if fine_tuning.init_weights is None else "from other weights"
        stage = Stage(name, network, optimizer, max_epochs, lr_scheduler, patience, "model.pt")
        return [dataclasses.replace(stage, fine_tuning=fine_tuning)]
    for name, given in (("init_weights", fine_tuning.init_weights), ("freeze_encoder", fine_tuning.freeze_encoder)):
        if given:
            raise UsageError(
                f"--{name} {given} with self-transfer, which trains encoders of its own and freezes them for "
                "--warm_up_epochs; give --self_transfer false too"
            )
    if max_epochs <= warm_up_epochs:
        logger.warning(
            "max_epochs %d leaves no epoch after the warm-up of %d: the warm-up takes all of them, and its weights are "
            "the result; fine-tuning needs more epochs", max_epochs, warm_up_epochs,
        )  # fmt: skip
    if max(channels) >= len(modalities):
        raise InputError(
            f"--channels {list(channels)}: expected indices from 0 to {len(modalities) - 1}, of {', '.join(modalities)}"
        )
    names = [modalities[channel] for channel in channels]
    files = [f"single_{name}.pt" for name in names]

    def warm_up() -> None:
        network.load_encoders([load_file(Path(ckpt_dir) / file) for file in files])
        network.freeze_encoders(True)

    single = [
        Stage(name, single_modality_network(), optimizer, max_epochs, lr_scheduler, patience, file, channels=[channel])
        for channel, (name, file) in enumerate(zip(names, files))
    ]
    if _encoder_shapes(single[0].network) != _encoder_shapes(network):
        raise InputError(
            "the encoders of network_def and single_modality_network differ; give both the same channels and options"
        )
    if max_epochs <= warm_up_epochs:
        last = Stage("warm-up", network, optimizer, max_epochs, lr_scheduler, weights="model.pt", prepare=warm_up)
        return [dataclasses.replace(stage, fine_tuning=fine_tuning) for stage in (*single, last)]
    stages = [
        *single,
        Stage("warm-up", network, optimizer, warm_up_epochs, lr_scheduler, prepare=warm_up),
        Stage(
            "fine-tuning",
            network,
            functools.partial(optimizer, lr=fine_tuning_rate),
            max_epochs - warm_up_epochs,
            lr_scheduler,
            patience,
            "model.pt",
            prepare=functools.partial(network.freeze_encoders, False),
        ),
    ]
    return [dataclasses.replace(stage, fine_tuning=fine_tuning) for stage in stages]


def _encoder_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of the state dict of a network's first encoder."""
    return {name: value.shape for name, value in network.get_submodule("encoders.0").state_dict().items()}
