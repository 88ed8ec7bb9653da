"""Whether a packed bundle is whole, unchanged and loadable."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .archive import unpack_zip
from .checksums import check_checksums
from .process import in_clean_process


def verify_package(package: str | Path) -> str:
    """Check a packed bundle: every file against its SHA-256, then the weights, loaded strictly in a clean process.

    The check sums tell a damaged or changed file. They do not tell who made a package: a bundle is code, and whoever
    can replace a file can replace the list too. Compare the zip's own SHA-256 with what its maker says.

    Args:
        package: folder or zip of :func:`pack_bundle`.

    Returns:
        name and version of the bundle.

    Raises:
        InputError: what is wrong, in one line.
    """
    package = Path(package)
    if not package.exists():
        raise InputError(f"{package}: no such folder or zip")
    if package.is_dir():
        return _verify_folder(package.resolve())
    with tempfile.TemporaryDirectory() as temporary:
        return _verify_folder(unpack_zip(package, Path(temporary)))


def _verify_folder(folder: Path) -> str:
    check_checksums(folder)
    weights = folder / "models" / "model.pt"
    check_weights(weights)
    in_clean_process("load", folder.parent, str(folder))
    metadata: dict[str, Any] = json.loads((folder / "configs" / "metadata.json").read_text())
    return f"{folder.name} {metadata['version']}"


def check_weights(path: Path) -> dict[str, torch.Tensor]:
    """A flat state dict of tensors, read without running what a pickle says.

    Raises:
        InputError: missing, damaged, or anything else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; train the bundle, or give --weights FILE")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path}: not a file of tensors alone ({reason}); expected a flat state dict, as training writes model.pt"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a flat dictionary of tensors, as training writes model.pt")
    return state
