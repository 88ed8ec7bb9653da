"""Find the clones of the authors' repositories, and make random weights for their networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

VARIABLE = "RELEASES"


@pytest.fixture
def release() -> Callable[[str], Path]:
    """Return the folder of a clone, such as that of ``Stefan-Yu404/MP-UNet``; skip the test without it."""

    def folder(repository: str) -> Path:
        name = repository.rpartition("/")[2]
        parent = os.environ.get(VARIABLE)
        if parent is None:
            pytest.skip(f"needs the authors' code: set {VARIABLE} to a folder with a clone of github.com/{repository}")
        if not (Path(parent) / name).is_dir():
            pytest.skip(f"{VARIABLE}={parent} has no folder {name}: clone github.com/{repository} there")
        return Path(parent) / name

    return folder


@pytest.fixture
def randomise() -> Callable[[nn.Module], None]:
    """Give a network weights that are all in use: no factor of 0 or 1, no statistics of a fresh normalisation."""

    def change(network: nn.Module) -> None:
        with torch.no_grad():
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                if tensor.is_floating_point() and (tensor.dim() < 2 or name.endswith("running_var")):
                    tensor.uniform_(0.2, 0.8)

    return change
