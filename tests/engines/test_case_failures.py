"""Check what a failure of a case and a fault of the whole run do."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor, nn

from common.data import CaseDataset
from common.errors import CasesFailedError, InputError

from .cases import NO_MEMORY, Cases, Watched, case, written


def test_a_case_that_fails_does_not_stop_the_others(
    evaluator: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = [case("a", 1.0), case("b", 2.0), {"case": "c", "error": "c.nii.gz: no such file"}, case("d", 4.0)]
    engine = evaluator(cases, {2.0: RuntimeError("out of memory")})
    with caplog.at_level("INFO"), pytest.raises(InputError) as error:
        engine.run()
    assert str(error.value) == f"2 of 4 cases failed: b ({NO_MEMORY}), c (c.nii.gz: no such file)"
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


def test_an_interruption_does_not_count_as_a_failed_case(evaluator: Callable) -> None:
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
