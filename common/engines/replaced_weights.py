"""Put new weights in the place of those that a training went on from, and keep the old ones."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from monai.handlers import CheckpointLoader

from ..files import failures_of_writing, whole_file
from ..record import record_path
from ..running_config import running_config
from .checkpoints import HALF_REPLACED

PREVIOUS = "previous_"  # folder beside the weights with those that were replaced; a number from 1 follows

logger = logging.getLogger(__name__)


def weights_of_loader() -> str | None:
    """Return the file of MONAI's ``CheckpointLoader``, which MONAI Label puts before the handlers of a training.

    A training config calls this. No handler of ``train::handlers`` is built, since a handler may need the stages, a
    data set or the evaluator, and these the result.

    Returns:
        file of the weights that the training goes on from; None without such a handler.
    """
    parser, _ = running_config()
    for number, handler in enumerate(parser.get("train::handlers", ())):
        if isinstance(handler, Mapping) and str(handler.get("_target_")).endswith(CheckpointLoader.__name__):
            place = f"train::handlers::{number}"
            is_disabled = "_disabled_" in handler and parser.get_parsed_content(f"{place}::_disabled_")
            if not is_disabled and handler.get("load_path") is not None:
                return str(parser.get_parsed_content(f"{place}::load_path"))
    return None


def replace_weights(weights: Path, new: Path) -> None:
    """Copy new weights and their record over older ones, which move to a folder ``previous_N`` beside them.

    All copies are complete before anything changes. Then the record is replaced, then the weights, each at once. If
    the process ends between these two steps, a file ``.replacing`` stays, and :func:`read_weights` refuses the weights.

    Args:
        weights: file to replace.
        new: file of the new weights, in another folder.

    Raises:
        InputError: a file cannot be written.
    """
    previous, record = _free_folder(weights.parent), record_path(weights)
    with failures_of_writing(previous):
        previous.mkdir()
    for file in (weights, record):
        if file.is_file():
            with whole_file(previous / file.name) as kept:
                shutil.copyfile(file, kept)
    half = weights.parent / HALF_REPLACED
    with whole_file(weights) as new_weights:
        shutil.copyfile(new, new_weights)
        if record_path(new).is_file():
            with whole_file(record) as new_record:
                shutil.copyfile(record_path(new), new_record)
                _mark(half, previous)
        else:
            _mark(half, previous)
            record.unlink(missing_ok=True)
    half.unlink()
    logger.info("%s has the new weights; those before are in %s", weights, previous)


def _free_folder(parent: Path) -> Path:
    number = 1
    while (parent / f"{PREVIOUS}{number}").exists():
        number += 1
    return parent / f"{PREVIOUS}{number}"


def _mark(half: Path, previous: Path) -> None:
    with whole_file(half) as partial:
        partial.write_text(previous.name, encoding="utf-8")
