"""Curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from common.handlers import EpochCurves

from ..trainers import curves


def finished(folder: Path) -> Engine:
    """Run an engine with metrics and the curves for one epoch."""
    engine = Engine(lambda engine, batch: None)
    found = {"loss": 0.5, "Dice left lung": 0.75, "Dice none": float("nan"), "case": "A"}
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(found))
    EpochCurves(folder).attach(engine)
    engine.run([0], max_epochs=1)
    return engine


def test_the_first_process_writes_finite_numbers(tmp_path: Path) -> None:
    finished(tmp_path)
    assert curves(tmp_path) == {"loss": [(1, 0.5)], "Dice left lung": [(1, 0.75)]}


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    finished(tmp_path)
    assert not (tmp_path / "tensorboard").exists()
