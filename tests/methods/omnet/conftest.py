"""Infer with OM-Net's bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .label_maps import labels_of
from .tiny import OMNET


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    return busy_weights(OMNET)


@pytest.fixture
def infer(workflow: Callable, tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Infer into a folder of its own; return the label maps by case."""

    def run(name: str, *overlays: str, **override: Any) -> dict[str, np.ndarray]:
        workflow(OMNET, "inference", *overlays, output_dir=str(tmp_path / name), **override).run()
        return {p.name.removesuffix("_seg.nii.gz"): labels_of(p) for p in (tmp_path / name).glob("*_seg.nii.gz")}

    return run
