"""Test progress on a terminal and in a log."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest
import torch
from ignite.engine import Engine
from monai.engines import Evaluator, Trainer

from common.handlers import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(kind: type, cases: int) -> None:
    """Run an engine that does nothing, with the handler."""
    engine = kind.__new__(kind)
    Engine.__init__(engine, lambda engine, batch: None)
    Progress("inference").attach(engine)
    Engine.run(engine, torch.zeros(cases), max_epochs=1)


@pytest.mark.parametrize(("cases", "lines"), [(4, 4), (10, 10), (25, 9), (1000, 10)])
def test_a_log_gets_at_most_ten_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, cases: int, lines: int
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "common.handlers"):
        run(Evaluator, cases)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("common")]
    assert len(messages) == lines
    assert messages[-1] == f"inference: {cases} of {cases} cases"
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_training_logs_its_epochs_alone(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "common.handlers"):
        run(Trainer, 5)
    assert not [record for record in caplog.records if record.name.startswith("common")]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_bar_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda stream: (columns, 24))
    run(Evaluator, 5)
    shown = re.split(r"[\r\n]", sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert any("inference" in line for line in shown)
    assert max(map(len, shown)) <= columns
