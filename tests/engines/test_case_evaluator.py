"""Evaluate cases: scores, tables and further runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from common.errors import CasesFailedError, InputError

from .cases import case, largest, written


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


def test_a_second_run_has_no_score_of_the_first(evaluator: Callable) -> None:
    engine = evaluator([case("a", 1.0)])
    engine.run()
    engine.network.failures = {1.0: MemoryError()}
    with pytest.raises(CasesFailedError):
        engine.run()
    assert engine.state.metrics == {} and engine.state.metric_details == {}


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
