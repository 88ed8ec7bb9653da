from __future__ import annotations

import csv
import errno
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.data import CaseDataset
from common.engines import CaseEvaluator
from common.errors import CasesFailedError, InputError
from common.files import whole_file


class Identity(nn.Module):
    """Returns its input, and fails for the values given."""

    def __init__(self, failures: dict[float, BaseException]) -> None:
        super().__init__()
        self.failures = failures

    def forward(self, x: Tensor) -> Tensor:
        error = self.failures.get(x.max().item())
        if error is not None:
            raise error
        return x


NO_MEMORY = "not enough memory (out of memory); use a machine with more memory, or a smaller scan"


def case(name: str, value: float) -> dict[str, Any]:
    volume = torch.full((1, 2, 2, 2), value)
    return {"case": name, "image": volume, "truth": volume}


def ratio(prediction: Tensor, truth: Tensor) -> Tensor:
    """1, and not defined for an empty truth."""
    assert prediction.shape == truth.shape == (1, 1, 2, 2, 2)
    return (prediction.sum() / truth.sum()).reshape(1, 1)


def largest(prediction: Tensor, truth: Tensor) -> float:
    return prediction.max().item()


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


def written(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_of_other_weights_are_not_replaced(evaluator: Callable, tmp_path: Path) -> None:
    failures: dict[float, BaseException] = {7.0: AssertionError("computed")}
    evaluator([case("a", 1.0)], made_by={"weights": "A"}).run()
    with pytest.raises(InputError, match=r"scores\.csv: made by another run \(weights A, this run has B\)"):
        evaluator([case("a", 7.0)], failures, made_by={"weights": "B"}).run()
    evaluator([case("b", 1.0)], made_by={"weights": "A"}).run()
    assert [row["case"] for row in written(tmp_path)] == ["b"]


@pytest.mark.parametrize("name", ["scores.csv", "classes.csv", "class_scores.csv"])
def test_a_table_of_the_user_is_not_replaced(evaluator: Callable, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / name
    table.write_text("reader,case,opinion\n")
    engine = evaluator([case("a", 7.0)], {7.0: AssertionError("computed")}, class_scores=lambda *_: {})
    with pytest.raises(InputError, match=rf"{name}: another file of this name"):
        engine.run()
    assert table.read_text() == "reader,case,opinion\n"


def test_a_score_that_is_not_defined_is_left_out_of_the_mean(evaluator: Callable, tmp_path: Path) -> None:
    engine = evaluator([case("a", 1.0), case("empty", 0.0), case("b", 3.0)])
    engine.run()
    assert engine.state.metrics["ratio"] == 1.0
    assert engine.state.metrics["largest"] == pytest.approx(4 / 3)
    assert [row["case"] for row in written(tmp_path)] == ["a", "b", "empty"]
    assert [row["ratio"] for row in written(tmp_path)] == ["1.000000", "1.000000", "nan"]


def test_the_mean_of_a_score_without_values_is_nan(evaluator: Callable) -> None:
    engine = evaluator([case("empty", 0.0)])
    engine.run()
    assert math.isnan(engine.state.metrics["ratio"])
    assert engine.state.metrics["largest"] == 0


def test_a_case_that_fails_does_not_stop_the_others(
    evaluator: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [case("a", 1.0), case("b", 2.0), {"case": "c", "error": "c.nii.gz: no such file"}, case("d", 4.0)]
    engine = evaluator(cases, {2.0: RuntimeError("out of memory")})
    with caplog.at_level("INFO"), pytest.raises(InputError) as error:
        engine.run()
    assert str(error.value) == "2 of 4 cases failed: b, c"
    for line in (f"case b: {NO_MEMORY}", "case c: c.nii.gz: no such file"):
        assert caplog.messages.count(line) == 1
    assert error.value.status == 1
    assert [row["case"] for row in written(tmp_path)] == ["a", "d"]
    assert engine.state.metrics["largest"] == 2.5
    assert "2 of 4 cases done" in caplog.text


def test_a_failure_is_one_line(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0)], {1.0: RuntimeError("out of memory\nwhere, in which kernel, and what to try")})
    with pytest.raises(InputError):
        engine.run()
    assert engine.failures == {"a": NO_MEMORY}


def test_the_input_error_of_a_chain_is_reported(evaluator: Callable) -> None:
    def postprocess(data: dict) -> dict:
        try:
            raise InputError("a.nii.gz: cannot be written")
        except InputError as error:
            raise RuntimeError("applying transform") from error

    engine = evaluator([case("a", 1.0)], postprocessing=postprocess)
    with pytest.raises(InputError, match=r"^1 of 1 cases failed: a \(a\.nii\.gz: cannot be written\)$"):
        engine.run()
    assert engine.failures == {"a": "a.nii.gz: cannot be written"}


def test_without_a_score_no_table_is_written(evaluator: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of 1 cases failed"):
        evaluator([{"case": "a", "error": "broken"}]).run()
    assert not (tmp_path / "out").exists()


def test_a_second_run_forgets_the_first(evaluator: Callable, tmp_path: Path) -> None:
    engine = evaluator([case("a", 1.0), case("b", 2.0)], {2.0: RuntimeError("busy")})
    with pytest.raises(InputError):
        engine.run()
    engine.network.failures = {}
    engine.run()
    assert [row["case"] for row in written(tmp_path)] == ["a", "b"]


def test_an_interruption_is_no_failure_of_a_case(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0), case("b", 2.0)], {1.0: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    assert not engine.failures


def test_a_run_in_which_all_cases_fail_has_status_3(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0), {"case": "b", "error": "broken"}], {1.0: MemoryError()})
    with pytest.raises(CasesFailedError, match="2 of 2 cases failed") as error:
        engine.run()
    assert error.value.status == 3
    assert engine.state.metrics == {}


@pytest.mark.parametrize("place", ["reading", "network", "postprocessing", "metric"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: torch.empty(1 << 55), "not enough memory ("),
        (lambda: np.empty(1 << 55), "not enough memory ("),
        (lambda: Path("/no/such/file").read_text(), "/no/such/file: No such file or directory; "),
        (lambda: {}["key"], "internal error (KeyError: 'key'); report it with the traceback in the log"),
    ],
    ids=["torch has no memory", "numpy has no memory", "no file", "an error of ours"],
)
def test_any_error_of_a_case_is_reported_in_one_line(
    place: str, error: Callable, message: str, evaluator: Callable, tmp_path: Path
) -> None:
    def maybe(where: str, value: Any) -> Any:
        return error() if where == place and value in ("a", 1) else None

    def step(data: dict) -> dict:
        maybe("reading", data["case"])
        return {**data, "image": MetaTensor(data["image"])}

    def postprocess(data: dict) -> dict:
        maybe("postprocessing", data["case"])
        return data

    cases = CaseDataset([case("b", 2.0), case("a", 1.0), case("c", 3.0)], step)
    metric = {"pred": {"largest": lambda prediction, truth: maybe("metric", prediction.max()) or 1.0}}
    engine = evaluator(cases, metrics=metric, postprocessing=Compose([postprocess]))
    engine.network = Watched(lambda value: maybe("network", value))
    with pytest.raises(CasesFailedError) as raised:
        engine.run()
    assert list(engine.failures) == ["a"] and message in engine.failures["a"]
    assert raised.value.status == 1
    assert [row["case"] for row in written(tmp_path)] == ["b", "c"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_run_at_once(code: int, evaluator: Callable, tmp_path: Path) -> None:
    seen = []

    def write(data: dict) -> dict:
        seen.append(data["case"])
        if data["case"] == "b":
            raise OSError(code, os.strerror(code), str(tmp_path / "b_seg.nii.gz"))
        return data

    engine = evaluator([case(name, 1.0) for name in "abcde"], postprocessing=Compose([write]))
    message = rf"^case b: .*b_seg.nii.gz cannot be written \({os.strerror(code)}\); 1 of 5 cases are done; free space"
    with pytest.raises(InputError, match=message) as error:
        engine.run()
    assert not isinstance(error.value, CasesFailedError)
    assert seen == ["a", "b"]


def test_scores_that_cannot_be_written_are_one_line(evaluator: Callable, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in the folder's place")
    with pytest.raises(InputError, match=r"out: a file, expected a folder; choose another place to write to"):
        evaluator([case("a", 1.0)]).run()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_end_the_run(value: float, evaluator: Callable) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(value))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    engine = evaluator([case("a", 1.0), case("b", 2.0)])
    engine.network = Weighted()
    with pytest.raises(InputError, match=r"^the network's weights hold values that are not finite"):
        engine.run()
    assert not engine.failures


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_not_finite_fails_its_case(value: float, evaluator: Callable, tmp_path: Path) -> None:
    broken = case("b", 1.0)
    broken["image"] = broken["image"].clone()
    broken["image"][0, 1, 1, 1] = value
    engine = evaluator([case("a", 1.0), broken, case("c", 3.0)])
    with pytest.raises(CasesFailedError):
        engine.run()
    assert engine.failures["b"].startswith("the network's output holds values that are not finite")
    assert [row["case"] for row in written(tmp_path)] == ["a", "c"]


def test_equal_names_are_refused_before_anything_starts(evaluator: Callable) -> None:
    engine = evaluator([case("P1", 1.0), case("P2", 2.0), case("P1", 3.0)])
    engine.network = Watched(lambda value: pytest.fail("a case was computed"))
    with pytest.raises(InputError, match=r"^two cases are called P1, .* a different 'case' in the data list$"):
        engine.run()


def test_equal_names_of_a_data_set_without_a_list_are_refused(evaluator: Callable) -> None:
    finished = []
    cases = Cases([case("P1", 1.0), case("P2", 2.0), case("P1", 3.0)], lambda name: None)
    engine = evaluator(cases, postprocessing=lambda data: finished.append(data["case"]) or data)
    with pytest.raises(InputError, match="two cases are called P1"):
        engine.run()
    assert finished == ["P1", "P2"]


def test_a_second_run_has_no_score_of_the_first(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0)])
    engine.run()
    engine.network.failures = {1.0: MemoryError()}
    with pytest.raises(CasesFailedError):
        engine.run()
    assert engine.state.metrics == {} and engine.state.metric_details == {}


# Several values of one metric, and the order of things.


def test_a_metric_may_give_several_columns(evaluator: Callable, tmp_path: Path) -> None:
    def several(prediction: Tensor, truth: Tensor) -> dict[str, float]:
        return {"Dice": prediction.max().item() / 4, "HD95": math.nan if truth.max() == 2 else 7.0}

    engine = evaluator([case("a", 1.0), case("b", 2.0)], metrics={"pred": {"scores": several, "largest": largest}})
    engine.run()
    first, second = written(tmp_path)
    assert list(first) == ["case", "Dice", "HD95", "largest"]
    assert [float(first[name]) for name in ("Dice", "HD95", "largest")] == [0.25, 7, 1]
    assert float(second["Dice"]) == 0.5 and second["HD95"] == "nan"
    assert {name: engine.state.metrics[name] for name in ("Dice", "HD95", "largest")} == {
        "Dice": 0.375, "HD95": 7, "largest": 1.5,
    }  # fmt: skip
    assert "scores" not in engine.state.metrics


def test_failures_are_in_the_order_of_the_cases(evaluator: Callable, tmp_path: Path) -> None:
    """Whether in reading, in the network, in writing or in a metric, which are done at different times."""

    def postprocess(data: dict) -> dict:
        if data["case"] in ("b", "f"):
            raise InputError(f"{data['case']}: the label map cannot be written")
        return data

    def metric(prediction: Tensor, truth: Tensor) -> float:
        if prediction.max() == 7:
            raise ZeroDivisionError("no voxel")
        return 0.0

    memory = RuntimeError("out of memory")
    cases = [case(name, float(value)) for value, name in enumerate("abcdefgh")]
    cases[3] = {"case": "d", "error": "d: no T2"}
    cases[6] = {"case": "g", "error": "g: no T1"}
    options = {"postprocessing": postprocess, "metrics": {"pred": {"metric": metric}}}
    engine = evaluator(cases, {2.0: memory, 4.0: memory}, **options)
    with pytest.raises(InputError, match="7 of 8 cases failed"):
        engine.run()
    assert list(engine.failures.items()) == [
        ("b", "the label map cannot be written"),
        ("c", NO_MEMORY),
        ("d", "d: no T2"),
        ("e", NO_MEMORY),
        ("f", "the label map cannot be written"),
        ("g", "g: no T1"),
        ("h", "internal error (ZeroDivisionError: no voxel); report it with the traceback in the log"),
    ]
    assert [row["case"] for row in written(tmp_path)] == ["a"]


# What runs beside the network.

PATIENCE = 10.0  # seconds until what waits for something that never happens gives up


class Cases(Dataset):
    """Calls something at the reading of each case."""

    def __init__(self, cases: list[dict], on_read: Callable[[str], None]) -> None:
        self.cases = cases
        self.on_read = on_read

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict:
        self.on_read(self.cases[index]["case"])
        return self.cases[index]


class Watched(nn.Module):
    """Returns its input, after a call with its largest value."""

    def __init__(self, on_call: Callable[[float], None]) -> None:
        super().__init__()
        self.on_call = on_call

    def forward(self, x: Tensor) -> Tensor:
        self.on_call(x.max().item())
        return x


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
