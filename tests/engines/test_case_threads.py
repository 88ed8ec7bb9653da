"""Check what runs beside the network: reading ahead, and writing the case before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any

import pytest
from ignite.engine import Events

from common.files import whole_file

from .cases import Cases, Watched, case, written

PATIENCE = 10.0  # seconds until what waits for something that never happens gives up


def test_reading_network_and_writing_run_in_parallel(evaluator: Callable, tmp_path: Path) -> None:
    """The writing of a, the network on b and the reading of c wait for each other; one after the other, none ends."""
    meeting = Barrier(3, timeout=PATIENCE)
    threads = {}

    def meet(what: str) -> None:
        threads[what] = get_ident()
        meeting.wait()

    def postprocess(data: dict) -> dict:
        if data["case"] == "a":
            meet("writing a")
        return data

    three = [case("a", 1.0), case("b", 2.0), case("c", 3.0)]
    cases = Cases(three, lambda name: meet("reading c") if name == "c" else None)
    engine = evaluator(cases, postprocessing=postprocess)
    engine.network = Watched(lambda value: meet("b in the network") if value == 2 else None)
    engine.run()
    assert [row["case"] for row in written(tmp_path)] == ["a", "b", "c"]
    assert len(set(threads.values())) == 3
    assert threads["b in the network"] == get_ident()


def test_one_case_is_read_ahead_and_one_is_written_at_a_time(evaluator: Callable) -> None:
    """So that memory holds three at most, however slow one of them is."""
    reading, writing = [], []
    read_b, begun = Event(), []

    def read(name: str) -> None:
        reading.append(name)
        if name == "b":
            read_b.set()

    def look(value: float) -> None:
        if value == 1:
            assert read_b.wait(PATIENCE)
        begun.append((value, len(reading), len(writing)))

    cases = [case(name, value + 1.0) for value, name in enumerate("abcde")]
    engine = evaluator(Cases(cases, read), postprocessing=lambda data: writing.append(data["case"]) or data)
    engine.network = Watched(look)
    engine.run()
    for value, read_so_far, written_so_far in begun:
        assert value <= read_so_far <= value + 1
        assert value - 2 <= written_so_far <= value - 1
    assert reading == writing == list("abcde")


def test_an_error_of_the_loader_is_raised(evaluator: Callable, tmp_path: Path) -> None:
    """Such as a worker process that was killed: which cases it would have given, nobody knows."""

    def read(name: str) -> None:
        if name == "c":
            raise MemoryError("worker killed")

    finished = []
    cases = Cases([case(name, value + 1.0) for value, name in enumerate("abcd")], read)
    engine = evaluator(cases, postprocessing=lambda data: finished.append(data["case"]) or data)
    with pytest.raises(MemoryError, match="worker killed"):
        engine.run()
    assert finished == ["a", "b"]  # what was read before is not lost
    assert not (tmp_path / "out").exists()


def test_an_interruption_waits_for_the_case_being_written(evaluator: Callable, tmp_path: Path) -> None:
    writing, interrupted, returned = Event(), Event(), Event()
    left_alone = []

    def postprocess(data: dict) -> dict:
        with whole_file(tmp_path / f"{data['case']}.txt") as partial:
            partial.write_text("half")
            writing.set()
            assert interrupted.wait(PATIENCE)
            left_alone.append(returned.wait(0.5))  # until the run has ended, which must not be before this
            partial.write_text("half and half")
        return data

    def interrupt(value: float) -> None:
        if value == 2:
            assert writing.wait(PATIENCE)
            interrupted.set()
            raise KeyboardInterrupt

    engine = evaluator([case("a", 1.0), case("b", 2.0), case("c", 3.0)], postprocessing=postprocess)
    engine.network = Watched(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    returned.set()
    assert left_alone == [False]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "half and half"
    assert not engine.failures


@pytest.mark.parametrize("place", ["network", "handler"])
def test_no_thread_outlives_a_run_that_an_error_ends(evaluator: Callable, place: str) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    before = set(threading.enumerate())
    engine = evaluator([case("a", 1.0), case("b", 2.0), case("c", 3.0)])
    if place == "network":
        engine.network = Watched(fail)
    else:
        engine.add_event_handler(Events.ITERATION_COMPLETED, fail)
    with pytest.raises(KeyboardInterrupt) as error:
        engine.run()
    assert set(threading.enumerate()) == before
    assert error.value is not None  # its traceback holds the frames of the run


def test_a_run_after_an_interruption_begins_anew(evaluator: Callable, tmp_path: Path) -> None:
    engine = evaluator([case("a", 1.0), case("b", 2.0)], {2.0: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    engine.network.failures = {}
    engine.run()
    assert [row["case"] for row in written(tmp_path)] == ["a", "b"]
