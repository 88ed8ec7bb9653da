"""Test the status file, the time limit, resuming and the table of a batch."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn

from common.data import CaseDataset
from common.engines import CaseEvaluator, CaseResults
from common.engines.case_clock import CaseClock, peak_mb
from common.engines.case_status import IN_PROGRESS, InProgress, StatusFile
from common.errors import CasesFailedError, InputError
from common.transforms import AtomicSaveImaged

SLOW = 3  # value of a scan that takes long


def busy(value: float) -> None:
    """Work until the thread is interrupted if a scan is the slow one."""
    for _ in range(3000 if value == SLOW else 0):
        time.sleep(0.01)
    assert value != SLOW, "the work was not interrupted"


class Reads:
    """Read a case whose image is a number, and note which cases are in progress elsewhere."""

    def __init__(self, slow: bool) -> None:
        self.slow = slow
        self.seen: list[str] = []

    def __call__(self, case: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(case["case"])
        value = float(Path(case["image"]).read_text())
        if self.slow:
            busy(value)
        return {**case, "image": MetaTensor(torch.full((1, 2, 2, 2), value))}


class Network(nn.Module):
    """Return the input; take long for the slow scan if asked to."""

    def __init__(self, slow: bool) -> None:
        super().__init__()
        self.slow = slow

    def forward(self, image: Tensor) -> Tensor:
        if self.slow:
            busy(image.max().item())
        return image


@pytest.fixture
def batch(tmp_path: Path) -> Callable[..., CaseEvaluator]:
    """Make an evaluator of the cases a, b and c, of which b is the slow one."""
    for name, value in {"a": 1, "b": SLOW, "c": 2}.items():
        (tmp_path / name).write_text(str(value))

    def make(slow: str = "", cases: str = "abc", **options: Any) -> CaseEvaluator:
        listed = [{"case": name, "image": str(tmp_path / name)} for name in cases]
        step = AtomicSaveImaged("pred", "unused")

        def finish(data: dict[str, Any]) -> dict[str, Any]:
            if slow == "finishing":
                busy(data["image"].max().item())
            (tmp_path / "out" / f"{data['case']}_seg.nii.gz").write_text("mask")
            return {**data, "volumes_ml": {"liver": 1.5}}

        results = CaseResults(listed, tmp_path / "out", Compose([step]), "untrained", **options)
        results.labels = {"liver": 1}
        dataset = CaseDataset(results.to_do, Reads(slow == "reading"))
        return CaseEvaluator(
            device=torch.device("cpu"), val_data_loader=DataLoader(dataset, batch_size=1),
            network=Network(slow == "network"), postprocessing=finish, case_results=results,
        )  # fmt: skip

    return make


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_status_file_grows_by_a_line_for_each_case(batch: Callable, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("not a number")
    status = tmp_path / "night" / "status.csv"
    with pytest.raises(CasesFailedError, match="1 of 3 cases failed: c"):
        batch(status=status).run()
    found = {row["case"]: row for row in rows(status)}
    assert list(found["a"]) == ["case", "state", "reason", "seconds", "peak_mb"]
    assert {name: row["state"] for name, row in found.items()} == {"a": "done", "b": "done", "c": "failed"}
    assert "could not convert string to float" in found["c"]["reason"] and float(found["a"]["peak_mb"]) > 1


@pytest.mark.parametrize("stage", ["reading", "network", "finishing"])
def test_case_that_takes_too_long_fails_alone(batch: Callable, tmp_path: Path, stage: str) -> None:
    with pytest.raises(CasesFailedError, match=r"1 of 3 cases failed: b \(.*not done after 1 s; raise --case_timeout"):
        batch(stage, status=tmp_path / "status.csv", case_timeout=1).run()
    states = {row["case"]: row for row in rows(tmp_path / "status.csv")}
    assert {name: row["state"] for name, row in states.items()} == {"a": "done", "b": "failed", "c": "done"}
    assert "case_timeout" in states["b"]["reason"] and float(states["b"]["seconds"]) > 0.9
    assert json.loads((tmp_path / "out" / "b_seg.json").read_text())["state"] == "failed"


def test_time_limit_leaves_the_thread_usable() -> None:
    clock = CaseClock(0.05)
    for name in "ab":
        with pytest.raises(InputError, match=f"{name}: not done after 0.05 s"), clock.working(name):
            busy(SLOW)
    clock.limit = 60
    with clock.working("c"):
        pass
    time.sleep(0.2)  # nothing arrives late
    assert set(clock.seconds) == {"a", "b", "c"}


def test_seconds_of_all_stages_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = CaseClock(), iter([10.0, 13.0, 20.0, 21.0, 24.0])
    monkeypatch.setattr("common.engines.case_clock.time.monotonic", lambda: next(now))
    with clock.working("a"):
        pass
    assert clock.so_far("a") == 3
    with clock.working("a"):
        assert clock.so_far("a") == 4
    assert clock.so_far("a") == 7


def test_table_of_the_batch_and_records_say_the_origin(batch: Callable, tmp_path: Path) -> None:
    batch().run()
    table = rows(tmp_path / "out" / "cases.csv")
    assert [(row["case"], row["state"], row["device"], row["liver_ml"]) for row in table] == [
        (name, "done", "cpu", "1.5") for name in "abc"
    ]
    record = json.loads((tmp_path / "out" / "a_seg.json").read_text())
    assert record["volumes_ml"] == {"liver": 1.5} and record["classes"] == {"1": "liver"} and record["num_classes"] == 1
    assert record["seconds"] == record["runtime_seconds"] >= 0 and record["output_files"] == ["a_seg.nii.gz"]
    batch(cases="ab").run()
    assert len(rows(tmp_path / "out" / "cases.csv")) == 2
    (tmp_path / "out" / "cases.csv").write_text("changed by hand")
    with pytest.raises(InputError, match=r"cases.csv: another file of this name"):
        batch().run()


def test_status_of_a_resumed_run_continues(batch: Callable, tmp_path: Path) -> None:
    status = tmp_path / "status.csv"
    batch(cases="a", status=status).run()
    batch(status=status, resume=True).run()
    assert [row["case"] for row in rows(status)] == ["a", "b", "c"]
    batch(cases="c", status=status).run()
    assert [row["case"] for row in rows(status)] == ["c"]


def test_status_does_not_replace_another_file(batch: Callable, tmp_path: Path) -> None:
    (tmp_path / "status.csv").write_text("my notes\n")
    with pytest.raises(InputError, match=r"status.csv: another file, not with the columns case,state,reason"):
        batch(status=tmp_path / "status.csv")
    assert (tmp_path / "status.csv").read_text() == "my notes\n"


@pytest.mark.parametrize("name", ["out/cases.csv", "out/made_by.json", "out/b_seg.nii.gz", "out/a_seg.json"])
def test_status_with_the_name_of_a_result_is_refused(batch: Callable, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"--status .*{name}: the name of a result of this run; choose another name"):
        batch(status=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_status_in_the_place_of_a_folder_is_refused(batch: Callable, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"folder: cannot be written \(Is a directory\); choose another place"):
        batch(status=tmp_path / "folder")


def test_a_limit_before_the_loader_counts_a_case_repeats_none(
    batch: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = batch(case_timeout=100)

    @contextmanager
    def working(name: str) -> Iterator[None]:
        if name == "a":
            raise InputError("a: not done after 100 s")
        yield

    monkeypatch.setattr(engine.clock, "working", working)
    with pytest.raises(CasesFailedError, match=r"1 of 3 cases failed: a \(a: not done after 100 s\)"):
        engine.run()
    assert sorted(path.name for path in (tmp_path / "out").glob("*.gz")) == ["b_seg.nii.gz", "c_seg.nii.gz"]


def test_reason_of_several_lines_stays_one_line(tmp_path: Path) -> None:
    StatusFile(tmp_path / "s.csv", resume=False).add("a", "failed", 'two\nlines, "quoted"', "1.00", "2.0")
    assert rows(tmp_path / "s.csv")[0]["reason"] == 'two lines, "quoted"'
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 2


def killed(tmp_path: Path, *names: str) -> None:
    """Write the files that a process leaves if it is killed while it works on cases."""
    (tmp_path / "out").mkdir(exist_ok=True)
    progress = InProgress(tmp_path / "out", 0)
    for name in ("before", *names):
        progress.begin(name)
    progress.end("before")


def test_case_that_killed_the_run_alone_is_left_out(batch: Callable, tmp_path: Path) -> None:
    killed(tmp_path, "b")
    with pytest.raises(CasesFailedError, match="1 of 3 cases failed: b"):
        batch(resume=True).run()
    record = json.loads((tmp_path / "out" / "b_seg.json").read_text())
    assert record["state"] == "failed" and "killed" in record["reason"]
    with pytest.raises(CasesFailedError, match="1 of 3 cases failed: b"):
        batch(resume=True).run()
    batch(resume=True, retry=True).run()


def test_suspects_are_done_last_and_one_at_a_time(batch: Callable, tmp_path: Path) -> None:
    killed(tmp_path, "a", "b")
    evaluator = batch(resume=True)
    assert [case["case"] for case in evaluator.case_results.to_do] == ["c", "a", "b"]
    assert evaluator.one_at_a_time
    in_progress = []
    reads = evaluator.data_loader.loader.dataset.transform

    def watch(case: dict[str, Any]) -> dict[str, Any]:
        in_progress.append(json.loads((tmp_path / "out" / IN_PROGRESS.format(0)).read_text()))
        return reads(case)

    evaluator.data_loader.loader.dataset.transform = watch
    evaluator.run()
    assert in_progress == [["c"], ["a"], ["b"]]
    assert not (tmp_path / "out" / IN_PROGRESS.format(0)).exists()


def test_run_without_resume_does_every_case(batch: Callable, tmp_path: Path) -> None:
    killed(tmp_path, "b")
    evaluator = batch()
    assert [case["case"] for case in evaluator.case_results.to_do] == ["a", "b", "c"] and not evaluator.one_at_a_time


def test_peak_memory_begins_anew() -> None:
    peak_mb()
    block = torch.ones(30_000_000)
    with_block = peak_mb()
    del block
    assert with_block > 120
