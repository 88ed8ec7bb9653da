"""Make an evaluator without a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader

from common.engines import CaseEvaluator

from .cases import Identity, largest, ratio


@pytest.fixture
def evaluator(tmp_path: Path) -> Callable[..., CaseEvaluator]:
    def make(cases: Any, failures: dict[float, BaseException] | None = None, **options: Any) -> CaseEvaluator:
        return CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(cases, batch_size=1),
            network=Identity(failures or {}),
            **{
                "scores_dir": tmp_path / "out",
                "metrics": {"pred": {"ratio": ratio, "largest": largest}},
                **options,
            },
        )

    return make
