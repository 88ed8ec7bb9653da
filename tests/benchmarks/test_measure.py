from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.measure import (
    Cost,
    Figures,
    ForwardClock,
    command_seconds,
    exponent,
    in_fresh_process,
    interleaved,
    measure,
    peak_above_idle,
    report,
    row,
    slope,
)

CPU = torch.device("cpu")


class Busy(nn.Module):
    """Use at least 10 ms of CPU time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return x


def test_the_forwards_of_a_call_are_summed() -> None:
    network = Busy()
    clock = ForwardClock(network, CPU)
    network(torch.zeros(1))  # before the call, does not count
    cost = measure(lambda: [network(torch.zeros(1)) for _ in range(3)] and time.sleep(0.02), CPU, clock)
    assert len(clock.forwards) == 3
    assert 0.03 <= cost.forward_cpu <= cost.cpu
    assert cost.forward_cpu <= cost.forward_wall + 1e-3 and cost.forward_wall + 0.02 <= cost.wall


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    costs = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, CPU)
    assert "".join(order) == "ab" * 4
    assert {name: len(values) for name, values in costs.items()} == {"a": 3, "b": 3}


def test_figures_are_ratios_of_medians() -> None:
    costs = {
        "slow": [Cost(cpu, 2 * cpu, 1, 2) for cpu in (9.0, 5.0, 6.0)],
        "fast": [Cost(cpu, cpu, 1, 1) for cpu in (2.0, 2.0, 99.0)],
    }
    figures = Figures(costs, CPU)
    cpu, wall = figures.ratio("time", ("slow", "all"), ("fast", "all"), ">= 3")
    assert (cpu.figure, cpu.value, cpu.met) == ("time (CPU time)", 3.0, True)
    assert (wall.figure, wall.value, wall.goal, wall.met) == ("time (wall time)", 6.0, None, None)
    assert figures.ratio("rest", ("slow", "rest"), ("fast", "rest"), None)[0].value == 5.0
    assert Figures(costs, torch.device("cuda")).ratio("time", ("slow", "all"), ("fast", "all"), ">= 3")[0].value == 6.0


@pytest.mark.parametrize(
    ("value", "goal", "valid", "met"),
    [
        (4.0, ">= 4", True, True),
        (3.9, ">= 4", True, False),
        (1.0, "<= 1.04", True, True),
        (1.05, "<= 1.04", True, False),
        (9.0, ">= 4", False, False),  # the results differ
        (math.nan, "<= 1", True, False),
        (9.0, None, True, None),
    ],
)
def test_goals_are_judged(value: float, goal: str | None, valid: bool, met: bool | None) -> None:
    assert row("figure", value, goal, valid).met is met


def test_a_report_prints_a_table_and_writes_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [row("time, a / b", 4.123456, ">= 4"), row("Dice", 0.5)]
    report("infer", rows, CPU, str(tmp_path / "rows.json"))
    assert json.loads((tmp_path / "rows.json").read_text()) == [
        {"figure": "time, a / b", "value": 4.123, "goal": ">= 4", "met": True},
        {"figure": "Dice", "value": 0.5, "goal": None, "met": None},
    ]
    assert f"torch {torch.__version__}" in (shown := capsys.readouterr().out)
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["time,", "a", "/", "b", "4.123", ">=", "4", "yes"],
        ["Dice", "0.5"],
    ]


def test_slope_and_exponent_of_known_lines() -> None:
    x = [1.0, 2.0, 4.0, 8.0]
    assert slope(x, [100 + 25 * v for v in x]) == pytest.approx(25)
    assert exponent(x, [3 * v**1.5 for v in x]) == pytest.approx(1.5)


def growth_by_64_mib() -> int:
    return peak_above_idle(lambda: np.ones(8 * 2**20).sum())


@pytest.mark.slow
def test_peak_memory_of_a_fresh_process() -> None:
    assert 60 <= in_fresh_process(growth_by_64_mib) / 2**20 < 70  # the kernel counts in batches of pages


def test_cpu_time_of_a_command() -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    assert command_seconds(["-c", busy]) >= 0.2
    with pytest.raises(RuntimeError, match="oh no"):
        command_seconds(["-c", "raise SystemExit('oh no')"])
