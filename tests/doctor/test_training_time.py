"""Test the estimate of the time of a training."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.doctor import Findings, estimate_training, measuring, training_time
from common.doctor.measuring import PartialBatches, SampledWindows, mean_step
from common.doctor.training_time import Plan, StageTime, describe, total_time
from common.engines.epoch_clock import duration
from common.memory import Memory

from ..workflows import PLAIN, bundles


def plan(**changes: float) -> Plan:
    numbers = {
        "updates": 36,
        "batch_size": 2,
        "workers": 0,
        "cache_rate": 1.0,
        "train_cases": 40,
        "validation_cases": 10,
    }
    return Plan(**{**numbers, **changes})  # type: ignore[arg-type]


PLAN = plan()
FORM = re.compile(
    r"training: \S+ (s|min) per update, \d+ updates per epoch: \S+ (s|min) per epoch, \d+ epochs: (at most )?"
    r"\S+ (s|min) on this machine \(cpu, \d+ threads?\)"
)


class Ticks:
    """Advance by one second whenever the time is asked for."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1
        return self.time


def test_the_stages_add_up() -> None:
    stages = [StageTime(100, 20, 2.0, 30.0), StageTime(10, 10, 5.0, 60.0)]
    assert total_time(stages, 36, 120.0) == 120 + 100 * 36 * 2 + 20 * 30 + 10 * 36 * 5 + 10 * 60


def test_the_line_has_update_epoch_and_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    findings = Findings()
    assert describe(findings, [StageTime(600, 0, 12.0, 0.0)], PLAN, 0.0)[0] == (
        "training: 12 s per update, 36 updates per epoch: 7 min per epoch, 600 epochs: 72 h on this machine "
        "(cpu, 2 threads)"
    )
    assert not findings.found
    lines = describe(findings, [StageTime(100, 10, 1.0, 40.0), StageTime(100, 10, 2.0, 80.0)], PLAN, 90.0, at_most=True)
    assert lines == [
        "training: 1.5 s per update, 36 updates per epoch: 60 s per epoch, 200 epochs: at most 3 h 22 min on this "
        "machine (cpu, 2 threads)",
        "of it each of 20 validations: 60 s, 10 cases",
        "of it preparing the cases first: 90 s",
    ]


def test_a_training_that_takes_too_long_is_noted() -> None:
    findings = Findings()
    describe(findings, [StageTime(600, 0, 70.0, 0.0)], PLAN, 0.0)
    slow, too_long = findings.found
    assert slow[:2] == too_long[:2] == ("note", "training")
    assert slow.what.startswith("one update takes 70 s")
    assert too_long.what.startswith(
        "the training would take 18 days on this machine; use a GPU, fewer epochs or updates, a smaller"
    )


def test_data_beside_the_cache_are_prepared_again() -> None:
    assert PLAN.update_time(2.0, 0.5, 3.0) == 2.5
    assert plan(cache_rate=0.5).update_time(2.0, 0.5, 3.0) == 2 + 0.5 + 0.5 * 2 * 3
    assert plan(cache_rate=0.5, workers=2).update_time(2.0, 0.5, 3.0) == 2
    assert plan(cache_rate=0.5, workers=1).update_time(2.0, 0.5, 3.0) == 3.5


def test_the_first_of_several_updates_does_not_count() -> None:
    assert mean_step([(0, 1, 10)]) == (9, 1)
    assert mean_step([(0, 9, 99), (100, 102, 105), (106, 107, 112)]) == (4, 1.5)


def test_windows_after_the_budget_are_counted_alone() -> None:
    network = torch.nn.Conv3d(1, 2, 1)
    windows, calls = SampledWindows(network, Ticks(), budget=2.5), []
    network.register_forward_hook(lambda *args: calls.append(1))
    x = torch.ones(2, 1, 3, 3, 3)
    outputs = [windows(part) for part in (x, x, x, x, x[:1])]
    assert len(calls) == 3  # 1 s each
    assert [len(output) for output in outputs] == [2, 2, 2, 2, 1]
    assert all(torch.equal(output, outputs[0][: len(output)]) for output in outputs)
    assert windows.saved == 3 * 3 / 6
    windows(torch.ones(1, 1, 4, 4, 4))  # a window of another size has its own output
    assert len(calls) == 4


def overlay_of(config_files: Callable, bundle: Path) -> Path:
    return Path(config_files(bundle, "train")[-1])


def tree(*folders: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@bundles
def test_every_bundle_is_measured_and_writes_nothing(bundle: Path, cohort: Callable, config_files: Callable) -> None:
    data, overlay = cohort(bundle), overlay_of(config_files, bundle)
    findings, before = Findings(), tree(data, bundle)
    lines = estimate_training(findings, bundle, data, overlay=overlay)
    assert FORM.fullmatch(lines[0]), lines
    assert [line.partition(":")[0] for line in lines[1:]] == [
        lines[1].partition(":")[0],
        "of it preparing the cases first",
    ]
    assert re.match(r"of it each of \d+ validations: \S+ (s|min), \d+ cases$", lines[1])
    assert not findings.found and tree(data, bundle) == before


def test_the_measured_times_are_extrapolated(cohort: Callable, config_files: Callable) -> None:
    """Each reading of the clock takes 1 s: so does each update, each batch and each preparation."""
    overlay = overlay_of(config_files, PLAIN)
    settings = json.loads(overlay.read_text())
    overlay.write_text(json.dumps({**settings, "updates_per_epoch": 7, "max_epochs": 20, "batch_size": 1}))
    lines = estimate_training(Findings(), PLAIN, cohort(PLAIN), overlay=overlay, now=Ticks())
    validation = int(re.search(r"of it each of 20 validations: (\d+) s", lines[1])[1])  # type: ignore[index]
    cases = int(lines[1].split()[-2])
    assert cases >= 1 and validation > cases
    assert lines[0].startswith(f"training: 2 s per update, 7 updates per epoch: {7 * 2 + validation} s per epoch, 20")


def test_a_slow_update_is_measured_on_a_part_of_the_patch(
    cohort: Callable, config_files: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((measuring, "LARGE", 1), (measuring, "GRAIN", 8), (training_time, "BUDGET", 1.5)):
        monkeypatch.setattr(module, name, value)
    overlay = overlay_of(config_files, PLAIN)
    whole = json.loads(overlay.read_text())["roi_size"]
    share = math.prod(math.ceil(n / 16) * 8 for n in whole[:2]) / math.prod(whole[:2])
    lines = estimate_training(Findings(), PLAIN, cohort(PLAIN), overlay=overlay, now=Ticks())
    assert share < 1 and lines[0].startswith(f"training: {duration(1 / share + 1)} per update")  # 1 s on the part
    assert lines[-1].startswith("an update is slow: its time is that of a part of the patch")
    monkeypatch.setattr(training_time, "BUDGET", 1 / share)
    assert "part" not in estimate_training(Findings(), PLAIN, cohort(PLAIN), overlay=overlay, now=Ticks())[-1]


def test_a_part_has_image_and_label_of_one_place() -> None:
    image = torch.arange(2 * 8 * 6 * 4).reshape(2, 1, 8, 6, 4)
    batch = {"image": image, "label": -image, "class": torch.ones(2)}
    parts = list(PartialBatches([batch] * 3, (4, 2)))
    assert len(parts) == 2
    for part in parts:
        assert torch.equal(part["image"], image[:, :, :4, :2]) and torch.equal(part["label"], -part["image"])
        assert torch.equal(part["class"], torch.ones(2))


def test_a_training_that_does_not_fit_is_not_measured(
    cohort: Callable, config_files: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_time, "device_memory", lambda _: Memory(free=550_100_000, total=8_000_000_000))
    findings = Findings()
    (line,) = estimate_training(findings, PLAIN, cohort(PLAIN), overlay=overlay_of(config_files, PLAIN))
    assert re.fullmatch(
        r"training: not measured, an update takes about \d+ MB, but 550 MB of 8.0 GB memory are free", line
    )
    (note,) = findings.found
    assert note.where == "training" and "use a machine with more memory, or fewer epochs" in note.what


def test_a_config_that_cannot_be_built_is_said(cohort: Callable, tmp_path: Path) -> None:
    (tmp_path / "overlay.json").write_text('{"network_def::_target_": "none.Such"}')
    (line,) = estimate_training(Findings(), PLAIN, cohort(PLAIN), overlay=tmp_path / "overlay.json")
    assert line.startswith("training: not measured (")
