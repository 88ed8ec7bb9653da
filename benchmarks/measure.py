"""Measure times in turns and memory in fresh processes, and print the rows of a table."""

from __future__ import annotations

import datetime
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import monai
import numpy as np
import torch
from torch import nn
from tqdm import trange

from common.files import whole_file


@dataclass(frozen=True)
class Cost:
    """Hold the time of one call, in seconds.

    Args:
        cpu: CPU time of all threads of the process.
        wall: wall time.
        forward_cpu, forward_wall: CPU and wall time of the network's forwards in the call.
    """

    cpu: float
    wall: float
    forward_cpu: float = 0.0
    forward_wall: float = 0.0


class ForwardClock:
    """Sum the time of a network's forwards.

    The CPU time is that of the calling thread. With one thread, a forward runs in it alone, and the time of background
    threads does not count. On CUDA, events of the stream give the wall time: waiting for each forward would prevent a
    pipeline from overlapping its steps.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.forwards: list[tuple[tuple[float, float, Any], tuple[float, float, Any]]] = []
        started: list[tuple[float, float, Any]] = []
        # closures, so that a copy of the network adds to this clock too
        network.register_forward_pre_hook(lambda *_: started.append(self._now()))
        network.register_forward_hook(lambda *_: self.forwards.append((started.pop(), self._now())))

    def _now(self) -> tuple[float, float, Any]:
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return time.thread_time(), time.perf_counter(), event

    def reset(self) -> None:
        self.forwards.clear()

    def seconds(self) -> tuple[float, float]:
        """Return CPU and wall time since the reset, in seconds; the device must be idle."""
        cpu = sum(end[0] - start[0] for start, end in self.forwards)
        if self.device.type == "cuda":
            return cpu, sum(start[2].elapsed_time(end[2]) for start, end in self.forwards) / 1000
        return cpu, sum(end[1] - start[1] for start, end in self.forwards)


class Stopwatch:
    """Measure the time between start and stop, and wait for the device at both."""

    def __init__(self, device: torch.device, clock: ForwardClock | None = None) -> None:
        self.device = device
        self.clock = clock
        self.started = (0.0, 0.0)

    def start(self) -> None:
        gc.collect()
        self._wait()
        if self.clock is not None:
            self.clock.reset()
        self.started = time.process_time(), time.perf_counter()

    def stop(self) -> Cost:
        self._wait()
        cpu, wall = time.process_time() - self.started[0], time.perf_counter() - self.started[1]
        return Cost(cpu, wall, *(self.clock.seconds() if self.clock is not None else ()))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(call: Callable[[], object], device: torch.device, clock: ForwardClock | None = None) -> Cost:
    """Return the time of one call."""
    watch = Stopwatch(device, clock)
    watch.start()
    call()
    return watch.stop()


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    clocks: Mapping[str, ForwardClock] | None = None,
    title: str = "repeats",
    warm: bool = True,
) -> dict[str, list[Cost]]:
    """Return the times of calls that take turns, so that a change of the machine's load affects all of them.

    With ``warm``, each is called once before, which fills caches and initialises libraries.
    """
    clocks = clocks or {}
    for call in calls.values() if warm else ():
        call()
    costs: dict[str, list[Cost]] = {name: [] for name in calls}
    for _ in trange(repeats, desc=title, ncols=100):
        for name, call in calls.items():
            costs[name].append(measure(call, device, clocks.get(name)))
    return costs


class Figures:
    """Compute medians of times by the clock of the goals: CPU time, or wall time on CUDA."""

    def __init__(self, costs: Mapping[str, Sequence[Cost]], device: torch.device) -> None:
        self.costs = costs
        self.clocks = ("wall", "cpu") if device.type == "cuda" else ("cpu", "wall")

    def seconds(self, name: str, part: str = "all", clock: str | None = None) -> float:
        """Return the median over the repeats, in seconds.

        Args:
            name: name of the call.
            part: ``"all"``, ``"forward"`` or ``"rest"`` (all without the forwards).
            clock: ``"cpu"`` or ``"wall"``; None for the clock of the goals.
        """
        clock = clock or self.clocks[0]
        parts = {
            "all": lambda cost: getattr(cost, clock),
            "forward": lambda cost: getattr(cost, f"forward_{clock}"),
            "rest": lambda cost: getattr(cost, clock) - getattr(cost, f"forward_{clock}"),
        }
        return median(map(parts[part], self.costs[name]))

    def ratio(
        self, figure: str, over: tuple[str, str], under: tuple[str, str], goal: str | None, valid: bool = True
    ) -> list[Row]:
        """Return a ratio of medians as two rows: by the clock of the goals, then by the other clock without a goal.

        Args:
            figure: name of the figure.
            over, under: call and part of numerator and denominator, see :meth:`seconds`.
            goal, valid: see :func:`row`.
        """
        names = {"cpu": "CPU time", "wall": "wall time"}
        first, second = (
            (f"{figure} ({names[clock]})", self.seconds(*over, clock) / self.seconds(*under, clock))
            for clock in self.clocks
        )
        return [row(*first, goal, valid), row(*second)]

    def print(self, title: str) -> None:
        """Print the medians in seconds, one line for each call."""
        width = max(len(title), *map(len, self.costs))
        print(f"\n{title:{width}}  CPU s  forward     rest   wall s  forward     rest")
        for name in self.costs:
            values = [
                self.seconds(name, part, clock) for clock in ("cpu", "wall") for part in ("all", "forward", "rest")
            ]
            print(f"{name:{width}}" + "".join(f"{value:9.3f}" for value in values).replace(" ", "", 2))


@dataclass(frozen=True)
class Row:
    """Hold a figure of a table: its value, a goal such as ``">= 4"``, and whether it is met (None without a goal)."""

    figure: str
    value: float
    goal: str | None = None
    met: bool | None = None


def row(figure: str, value: float, goal: str | None = None, valid: bool = True) -> Row:
    """Return a row, and judge whether the value meets its goal.

    Args:
        figure: name of the figure, with its unit.
        value: value of the figure.
        goal: ``">= number"`` or ``"<= number"``; None for none.
        valid: whether the timed results are equal; if they are not, no goal is met.
    """
    met = None
    if goal is not None:
        relation, number = goal.split()
        met = valid and (value >= float(number) if relation == ">=" else value <= float(number))
    return Row(figure, float(f"{value:.4g}"), goal, met)


def report(table: str, rows: Sequence[Row], device: torch.device, json_file: str | None) -> None:
    """Print the table, and write its rows to ``json_file`` if it is given."""
    width = max(len(r.figure) for r in rows)
    print(f"\n{table}: {hardware(device)}\n{versions()}, {datetime.date.today()}, python -m benchmarks {command()}\n")
    print(f"{'figure':{width}}      value     goal  met")
    for r in rows:
        met = {None: "", True: "yes", False: "no"}[r.met]
        print(f"{r.figure:{width}} {r.value:10.4g} {r.goal or '':>8}  {met}".rstrip())
    if json_file is not None:
        with whole_file(json_file) as partial:
            partial.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


def command() -> str:
    return " ".join(sys.argv[1:])


def versions() -> str:
    return f"Python {platform.python_version()}, torch {torch.__version__}, monai {monai.__version__}"


def hardware(device: torch.device) -> str:
    """Return the processor, the number of usable cores, its bfloat16 units, and the CUDA device."""
    name = f"{_cpu_info('model name') or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    units = {"amx_bf16", "avx512_bf16"} & set(_cpu_info("flags").split())
    name += f" ({', '.join(sorted(units)) or 'no bfloat16'}), 1 thread"
    return f"{name}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else name


def _cpu_info(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def in_fresh_process(function: Callable, *args: Any) -> Any:
    """Return the result of a module's function that is called in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_above_idle(call: Callable[[], object]) -> int:
    """Return the largest growth of the process during a call, in bytes."""
    gc.collect()
    idle = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    call()
    return _memory("VmHWM") - idle


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the straight line through the points, by least squares."""
    return float(np.polyfit(x, y, 1)[0])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return ``k`` of ``y = c * x^k`` through the points, by least squares of the logarithms."""
    return slope([math.log(v) for v in x], [math.log(v) for v in y])


def command_seconds(arguments: Sequence[str]) -> float:
    """Return the CPU time of a Python process with one thread, in seconds.

    Raises:
        RuntimeError: the process failed; the message has its output.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed:\n{output}")
    return usage.ru_utime + usage.ru_stime
