"""Times side by side, memory of fresh processes, and the rows of a table."""

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
    """Seconds of one call, and those of the network's forwards in it.

    Args:
        cpu: CPU time of all threads of the process.
        wall: wall time.
        forward_cpu, forward_wall: the forwards' part.
    """

    cpu: float
    wall: float
    forward_cpu: float = 0.0
    forward_wall: float = 0.0


class ForwardClock:
    """Sums the time of a network's forwards.

    CPU time is the calling thread's: with one thread a forward runs in it alone, and what a background thread does
    meanwhile is not the network's. On CUDA the wall time lies between events of the stream, since waiting for each
    forward would end the overlap that a pipeline may have.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device = device
        self.forwards: list[tuple[tuple[float, float, Any], tuple[float, float, Any]]] = []
        started: list[tuple[float, float, Any]] = []
        # functions, not methods: a copy of the network keeps reporting here
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
        """CPU and wall time since the reset; the device must be idle."""
        cpu = sum(end[0] - start[0] for start, end in self.forwards)
        if self.device.type == "cuda":
            return cpu, sum(start[2].elapsed_time(end[2]) for start, end in self.forwards) / 1000
        return cpu, sum(end[1] - start[1] for start, end in self.forwards)


class Stopwatch:
    """The cost of what happens between start and stop, with the device idle at both."""

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
    """The cost of one call."""
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
    """The costs of calls that take turns, so that a change of the machine's load meets them all.

    Each is called once before, unless ``warm`` is false, which fills caches and initialises what the first use does.
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
    """Medians of costs, by the clock that the device has goals for: CPU time, or wall time on CUDA."""

    def __init__(self, costs: Mapping[str, Sequence[Cost]], device: torch.device) -> None:
        self.costs = costs
        self.clocks = ("wall", "cpu") if device.type == "cuda" else ("cpu", "wall")

    def seconds(self, name: str, part: str = "all", clock: str | None = None) -> float:
        """Median over the repeats.

        Args:
            name: of the call.
            part: ``"all"``, ``"forward"`` or ``"rest"`` (without the forwards).
            clock: ``"cpu"`` or ``"wall"``; None for the one of the goals.
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
        """A ratio of medians as two rows: by the clock of the goal, then by the other, without one.

        Args:
            figure: what it is.
            over, under: call and part, as for :meth:`seconds`.
            goal, valid: as for :func:`row`.
        """
        names = {"cpu": "CPU time", "wall": "wall time"}
        first, second = (
            (f"{figure} ({names[clock]})", self.seconds(*over, clock) / self.seconds(*under, clock))
            for clock in self.clocks
        )
        return [row(*first, goal, valid), row(*second)]

    def print(self, title: str) -> None:
        """The medians in seconds, a line for each call."""
        width = max(len(title), *map(len, self.costs))
        print(f"\n{title:{width}}  CPU s  forward     rest   wall s  forward     rest")
        for name in self.costs:
            values = [
                self.seconds(name, part, clock) for clock in ("cpu", "wall") for part in ("all", "forward", "rest")
            ]
            print(f"{name:{width}}" + "".join(f"{value:9.3f}" for value in values).replace(" ", "", 2))


@dataclass(frozen=True)
class Row:
    """A figure of a table: its value, the goal such as ``">= 4"`` and whether it is met, None without a goal."""

    figure: str
    value: float
    goal: str | None = None
    met: bool | None = None


def row(figure: str, value: float, goal: str | None = None, valid: bool = True) -> Row:
    """A row whose goal is judged.

    Args:
        figure: what the value is, with its unit.
        value: the value.
        goal: ``">= number"`` or ``"<= number"``.
        valid: whether the results that were timed are equal; if not, no time meets its goal.
    """
    met = None
    if goal is not None:
        relation, number = goal.split()
        met = valid and (value >= float(number) if relation == ">=" else value <= float(number))
    return Row(figure, float(f"{value:.4g}"), goal, met)


def report(table: str, rows: Sequence[Row], device: torch.device, json_file: str | None) -> None:
    """Print the table; write its rows where a file is named."""
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
    """The processor, its cores that this process may use, its bfloat16 units, and the CUDA device."""
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
    """What a function of a module returns in a process of its own, which has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def peak_above_idle(call: Callable[[], object]) -> int:
    """Bytes by which the process grows at most during a call."""
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
    """Of the straight line through the points, by least squares."""
    return float(np.polyfit(x, y, 1)[0])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """``k`` of ``y = c * x^k`` through the points, by least squares of the logarithms."""
    return slope([math.log(v) for v in x], [math.log(v) for v in y])


def command_seconds(arguments: Sequence[str]) -> float:
    """CPU seconds of a Python process with one thread.

    Raises:
        RuntimeError: it failed; the message has its output.
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
