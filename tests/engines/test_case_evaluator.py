from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from torch import Tensor, nn

from common.engines import CaseEvaluator
from common.errors import InputError


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
    def make(cases: list[dict], failures: dict[float, BaseException] | None = None, **options: Any) -> CaseEvaluator:
        return CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(cases, batch_size=1),
            network=Identity(failures or {}),
            metrics={"pred": {"ratio": ratio, "largest": largest}},
            scores_file=tmp_path / "out" / "scores.csv",
            **options,
        )

    return make


def written(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_score_that_is_not_defined_is_left_out_of_the_mean(evaluator: Callable, tmp_path: Path) -> None:
    engine = evaluator([case("a", 1.0), case("empty", 0.0), case("b", 3.0)])
    engine.run()
    assert engine.state.metrics["ratio"] == 1.0
    assert engine.state.metrics["largest"] == pytest.approx(4 / 3)
    assert [row["case"] for row in written(tmp_path)] == ["a", "b", "empty"]
    assert [row["ratio"] for row in written(tmp_path)] == ["1.000000", "1.000000", "nan"]


def test_a_score_that_no_case_has_is_not_a_number(evaluator: Callable) -> None:
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
    message = "2 of 4 cases failed:\n  b: RuntimeError: out of memory\n  c: c.nii.gz: no such file"
    assert str(error.value) == message
    assert [row["case"] for row in written(tmp_path)] == ["a", "d"]
    assert engine.state.metrics["largest"] == 2.5
    assert "2 of 4 cases done" in caplog.text


def test_a_failure_is_one_line(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0)], {1.0: RuntimeError("out of memory\nwhere, in which kernel, and what to try")})
    with pytest.raises(InputError):
        engine.run()
    assert engine.failures == ["a: RuntimeError: out of memory"]


def test_of_a_chain_of_errors_the_users_is_told(evaluator: Callable) -> None:
    def postprocess(data: dict) -> dict:
        try:
            raise InputError("a.nii.gz: cannot be written")
        except InputError as error:
            raise RuntimeError("applying transform") from error

    engine = evaluator([case("a", 1.0)], postprocessing=postprocess)
    with pytest.raises(InputError, match=r"a: a\.nii\.gz: cannot be written$"):
        engine.run()


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
