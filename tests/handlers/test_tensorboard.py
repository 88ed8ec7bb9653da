"""Test curves for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine, Events

from common.handlers import EpochCurves

from ..trainers import curves


def attached(folder: Path) -> Engine:
    """Return an engine with metrics and the curves."""
    engine = Engine(lambda engine, batch: None)
    found = {"loss": 0.5, "Dice left lung": 0.75, "Dice none": float("nan"), "case": "A"}
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: engine.state.metrics.update(found))
    EpochCurves(folder).attach(engine)
    return engine


def test_the_first_process_writes_finite_numbers(tmp_path: Path) -> None:
    attached(tmp_path).run([0], max_epochs=1)
    assert curves(tmp_path) == {"loss": [(1, 0.5)], "Dice left lung": [(1, 0.75)]}


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    attached(tmp_path).run([0], max_epochs=1)
    assert not (tmp_path / "tensorboard").exists()


def test_an_engine_that_never_starts_leaves_no_folder(tmp_path: Path) -> None:
    attached(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_second_run_continues_the_same_file(tmp_path: Path) -> None:
    engine = attached(tmp_path)
    engine.run([0], max_epochs=1)
    engine.run([0], max_epochs=3)
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 1
    assert curves(tmp_path)["loss"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
