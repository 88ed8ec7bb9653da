"""Put new weights in the place of those that a training went on from, and keep the old ones."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from monai.handlers import CheckpointLoader

from ..files import failures_of_writing, whole_file
from ..options import running_config
from ..record import record_path

PREVIOUS = "previous_"  # folder beside the weights with those that were replaced; a number from 1 follows

logger = logging.getLogger(__name__)


def weights_of_loader() -> str | None:
    """Return the file of MONAI's ``CheckpointLoader``, which MONAI Label puts before the handlers of a training.

    A training config calls this. The other handlers of ``train::handlers`` are not built, since they may need a data
    set or the evaluator, and these the result.

    Returns:
        file of the weights that the training goes on from; None without such a handler.
    """
    parser, _ = running_config()
    for number, handler in enumerate(parser.get("train::handlers", ())):
        if isinstance(handler, Mapping) and str(handler.get("_target_")).endswith(CheckpointLoader.__name__):
            loader = parser.get_parsed_content(f"train::handlers::{number}")
            if isinstance(loader, CheckpointLoader):  # None if it is disabled
                return loader.load_path
    return None


def replace_weights(weights: Path, new: Path) -> None:
    """Copy new weights and their record over older ones, which move to a folder ``previous_N`` beside them.

    A copy of the older files is complete before anything changes. Then the record is replaced, then the weights, each
    at once. So a program that reads ``weights`` meanwhile finds the older file or the new one, both complete.

    Args:
        weights: file to replace.
        new: file of the new weights, in another folder.

    Raises:
        InputError: a file cannot be written.
    """
    previous = _free_folder(weights.parent)
    with failures_of_writing(previous):
        previous.mkdir()
    for file in (weights, record_path(weights)):
        if file.is_file():
            _copy(file, previous / file.name)
    if record_path(new).is_file():
        _copy(record_path(new), record_path(weights))
    _copy(new, weights)
    logger.info("%s has the new weights; those before are in %s", weights, previous)


def _free_folder(parent: Path) -> Path:
    number = 1
    while (parent / f"{PREVIOUS}{number}").exists():
        number += 1
    return parent / f"{PREVIOUS}{number}"


def _copy(file: Path, to: Path) -> None:
    with whole_file(to) as partial:
        shutil.copyfile(file, partial)
