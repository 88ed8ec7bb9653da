"""Self-transfer, the training of MMFNet (section III-C and IV-C)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...engines.checkpoints import load_file
from ...engines.stages import Stage

if TYPE_CHECKING:
    from . import MMFNet

logger = logging.getLogger(__name__)


def self_transfer(
    network: MMFNet,
    single_modality_network: Callable[[], MMFNet],
    modalities: Sequence[str],
    ckpt_dir: str | Path,
    max_epochs: int = 100,
    warm_up_epochs: int = 5,
    patience: int = 10,
    learning_rate: float = 1e-3,
    fine_tuning_rate: float = 1e-4,
) -> list[Stage]:
    """Make a stage for each modality, then the warm-up of fusion blocks and decoder, then the fine-tuning of all.

    Args:
        network: the multi-modality network.
        single_modality_network: builds the network of one modality, whose encoder is the multi-modality network's.
        modalities: names, in channel order.
        ckpt_dir: folder of the trainer, where the single-modality weights are found again.
        max_epochs: of each single-modality network, and of warm-up and fine-tuning together; where the warm-up takes
            them all, its weights are the result.
        warm_up_epochs: with frozen encoders.
        patience: early stopping of every stage but the warm-up.
        learning_rate: of the single-modality networks and the warm-up.
        fine_tuning_rate: of the fine-tuning.

    Returns:
        the stages of a :class:`StagedTrainer`; the last one writes ``model.pt``.
    """
    if max_epochs <= warm_up_epochs:
        logger.warning(
            "max_epochs %d leaves no epoch after the warm-up of %d: the warm-up takes them all, and its weights are "
            "the result; fine-tuning needs more epochs", max_epochs, warm_up_epochs,
        )  # fmt: skip
    files = [f"single_{name}.pt" for name in modalities]

    def warm_up() -> None:
        network.load_encoders([load_file(Path(ckpt_dir) / file) for file in files])
        network.freeze_encoders(True)

    single = [
        Stage(name, single_modality_network(), learning_rate, max_epochs, patience, file, channels=[channel])
        for channel, (name, file) in enumerate(zip(modalities, files))
    ]
    if max_epochs <= warm_up_epochs:
        return [*single, Stage("warm-up", network, learning_rate, max_epochs, None, "model.pt", prepare=warm_up)]
    return [
        *single,
        Stage("warm-up", network, learning_rate, warm_up_epochs, prepare=warm_up),
        Stage(
            "fine-tuning",
            network,
            fine_tuning_rate,
            max_epochs - warm_up_epochs,
            patience,
            "model.pt",
            prepare=functools.partial(network.freeze_encoders, False),
        ),
    ]
