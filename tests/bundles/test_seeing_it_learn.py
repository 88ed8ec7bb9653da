"""Test the scores, curves and pictures of a training of each bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..trainers import curves
from ..workflows import bundles


@bundles
def test_a_training_shows_each_label_and_draws(
    workflow: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture, bundle: Path
) -> None:
    pytest.importorskip("matplotlib")
    flow = workflow(bundle, "train", picture_interval=2, updates_per_epoch=1)
    with caplog.at_level("INFO", "common.engines"):
        flow.run()
    names = [*(flow.parser["regions"] or flow.parser["labels"])]
    lines = [line for line in caplog.messages if "training loss" in line]
    found = curves(tmp_path / "models")
    for name in names:
        assert all(f", Dice {name} " in line for line in lines)
        assert [step for step, _ in found[f"Dice {name}"]] == [*range(1, len(lines) + 1)]
    drawn = sorted(path.name for path in (tmp_path / "models" / "pictures").iterdir())
    assert drawn == [f"epoch_{epoch:04d}.png" for epoch in range(2, len(lines) + 1, 2)]
