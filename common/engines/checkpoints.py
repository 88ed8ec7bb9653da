"""Read and write weights and training states: tensors and plain values only, whole files or none."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import whole_file
from ..record import RECORD_FILE, UNTRAINED, record_path

# File beside weights while these and their record are replaced. It has the name of the folder of the older ones.
HALF_REPLACED = ".replacing"
LARGE_LIST = "large_files.yml"  # in the folder of a package whose weights are downloaded

logger = logging.getLogger(__name__)


def save_whole(content: Any, path: str | Path, note: Callable[[str], None] | None = None) -> None:
    """Save with ``torch.save`` under a temporary name, then rename: an interruption leaves the old file unchanged.

    Args:
        content: tensors and plain values.
        path: file to write.
        note: callable that gets the SHA-256 of the file before the file is replaced; or None.
    """
    buffer = io.BytesIO()  # on a full disk, torch's own writer raises an error without file and cause
    torch.save(content, buffer)
    with whole_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())
        if note is not None:
            note(hashlib.sha256(buffer.getbuffer()).hexdigest())


def load_file(path: str | Path) -> Any:
    """Read a file of tensors and plain values.

    Raises:
        InputError: the file is missing or damaged, or it holds other objects.
    """
    if not Path(path).is_file():
        package = Path(path).absolute().parent.parent
        fix = "train the bundle, or give the weights of a training with --ckpt_dir or --weights"
        if (package / LARGE_LIST).is_file():
            fix = f"get it by python -m monai.bundle download_large_files --bundle_path '{package}'"
        raise InputError(f"{path}: no such file; {fix}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises errors of many types for a damaged or foreign file
        raise InputError(
            f"{path}: not a complete file of tensors and plain values ({type(error).__name__}); use another"
        ) from error


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict of tensors.

    Raises:
        InputError: the file is missing or damaged, it holds anything else, or its record may be that of other weights.
    """
    state = load_file(path)
    half = Path(path).parent / HALF_REPLACED
    if half.is_file():
        older = half.parent / half.read_text(encoding="utf-8")
        raise InputError(
            f"{half}: a training ended while it replaced {Path(path).name} and {RECORD_FILE}; copy both here from "
            f"{older} or from {half.parent / 'training'}, then remove this file"
        )
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path}: expected a flat dictionary of tensors, as in models/model.pt")
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"{path}: {key} holds values that are not finite; the training diverged, use other weights"
            )
    return state


def load_weights(network: torch.nn.Module, path: str | Path | Sequence[str | Path]) -> None:
    """Load a flat state dict strictly.

    Args:
        network: network that gets the weights.
        path: file, or ``"untrained"`` to keep the initial weights for comparison; or a list of these, one for each of
            the ``networks`` of an ensemble.

    Raises:
        InputError: the file is missing or damaged, its keys or shapes differ from the network's, or the numbers of
            files and networks differ.
    """
    if not isinstance(path, (str, Path)):
        members = list(getattr(network, "networks", [network]))
        if len(members) != len(path):
            raise InputError(f"{len(path)} files of weights for {len(members)} networks; give one for each")
        for member, file in zip(members, path):
            load_weights(member, file)
        return
    if str(path) == UNTRAINED:
        logger.warning("the network is untrained: its results say nothing about the method")
        return
    state = read_weights(path)
    if not record_path(path).is_file():
        logger.warning(
            "%s has no %s beside it: nobody can check which settings and cases the weights were trained with",
            *(path, RECORD_FILE),
        )
    own = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    given = {k: tuple(v.shape) for k, v in state.items()}
    if own != given:
        wrong = sorted(k for k in own.keys() | given.keys() if own.get(k) != given.get(k))
        shown = "; ".join(f"{k}: file {given.get(k, 'nothing')}, network {own.get(k, 'nothing')}" for k in wrong[:2])
        raise InputError(f"{path}: weights of another network, {len(wrong)} of {len(own)} entries differ ({shown})")
    network.load_state_dict(state)
