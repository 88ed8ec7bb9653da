"""Curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from common.handlers import EpochCurves


def finished(folder: Path) -> Engine:
    """Run an engine with a metric and the curves for one epoch."""
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(loss=0.5))
    EpochCurves(folder).attach(engine)
    engine.run([0], max_epochs=1)
    return engine


def test_the_first_process_writes_curves(tmp_path: Path) -> None:
    finished(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in file.read_bytes()


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    finished(tmp_path)
    assert not (tmp_path / "tensorboard").exists()
