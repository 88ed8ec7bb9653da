"""Test that classes of cases are written beside their label maps and scored over all cases."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from common.engines import CaseEvaluator, case_scores
from common.errors import InputError
from common.reporting import read_class_scores, read_classes, read_result, read_scores
from common.transforms import SplitClassesd

CLASSES = ["negative", "positive"]


def case(name: str, positive: float, true: int | None) -> dict[str, Any]:
    """Return a case for which the output equals the image: a segmentation channel and two probabilities."""
    volume = torch.tensor([0.5, 1 - positive, positive])[:, None, None, None].expand(-1, 2, 2, 2)
    item = {"case": name, "image": volume, "truth": volume[:1]}
    return item if true is None else {**item, "class": true}


class Scores:
    """Keep the arguments of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, probabilities: Tensor, true: Tensor) -> dict[str, float]:
        self.calls.append((probabilities, true))
        right = probabilities.argmax(1) == true
        return {"accuracy": right.float().mean().item(), "largest": float("nan")}


@pytest.fixture
def evaluator(tmp_path: Path) -> Callable[..., CaseEvaluator]:
    def make(cases: list[dict], **options: Any) -> CaseEvaluator:
        out = tmp_path / "out"
        return CaseEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(cases, batch_size=1),
            network=nn.Identity(),
            inferer=SimpleInferer(),
            scores_dir=out,
            **{
                "metrics": {"pred": {"accuracy": lambda prediction, truth: prediction.max().item()}},
                "postprocessing": SplitClassesd("pred", CLASSES),
                "results_dir": out,
                **options,
            },
        )

    return make


CASES = [case("b", 0.25, 0), case("a", 0.75, 1), case("c", 0.875, 0), case("d", 0.25, 1)]


def test_each_case_has_its_class_beside_it(evaluator: Callable, tmp_path: Path) -> None:
    evaluator(CASES).run()
    written = json.loads((tmp_path / "out" / "a_class.json").read_text())
    assert written == {"case": "a", "class": "positive", "probabilities": {"negative": 0.25, "positive": 0.75}}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a_class.json", "b_class.json", "c_class.json", "d_class.json", "made_by.json", "scores.csv",
    ]  # fmt: skip


def test_the_class_is_written_after_the_label_map(evaluator: Callable, tmp_path: Path) -> None:
    """So that a case whose label map failed has no result at all."""

    def postprocess(data: dict) -> dict:
        if data["case"] == "a":
            raise InputError("the label map cannot be written")
        assert not (tmp_path / "out" / f"{data['case']}_class.json").exists()
        return SplitClassesd("pred", CLASSES)(data)

    with pytest.raises(InputError, match="1 of 4 cases failed: a"):
        evaluator(CASES, postprocessing=postprocess).run()
    assert sorted(p.name[0] for p in (tmp_path / "out").glob("*_class.json")) == ["b", "c", "d"]


def test_no_result_or_no_folder_writes_nothing(evaluator: Callable, tmp_path: Path) -> None:
    scores = Scores()
    evaluator(CASES, postprocessing=None, class_scores=scores).run()
    evaluator(CASES, results_dir=None).run()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["made_by.json", "scores.csv"]
    assert not scores.calls


def test_classes_are_scored_over_all_cases(
    evaluator: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = Scores()
    engine = evaluator([*CASES, case("e", 0.5, None)], class_scores=scores)
    with caplog.at_level(logging.INFO):
        engine.run()
    ((probabilities, true),) = scores.calls
    assert probabilities.tolist() == [[0.25, 0.75], [0.75, 0.25], [0.125, 0.875], [0.75, 0.25]]  # a, b, c, d
    assert probabilities.dtype == torch.float32 and true.dtype == torch.int64
    assert true.tolist() == [1, 0, 0, 1]
    assert engine.state.metrics["class accuracy"] == 0.5
    assert engine.state.metrics["accuracy"] == 0.5  # of the segmentation, which has the same name
    assert read_class_scores(tmp_path / "out" / "class_scores.csv")["accuracy"] == 0.5
    rows = read_classes(tmp_path / "out" / "classes.csv")
    assert [(row["case"], row["class"], row["predicted"]) for row in rows] == [
        ("a", "positive", "positive"),
        ("b", "negative", "negative"),
        ("c", "negative", "positive"),
        ("d", "positive", "negative"),
    ]
    assert rows[0]["probability negative"] == 0.25
    assert list(read_scores(tmp_path / "out" / "scores.csv")[0]) == ["case", "accuracy"]
    assert len(read_scores(tmp_path / "out" / "scores.csv")) == 5
    assert "classes of 4 cases" in caplog.text and "accuracy   0.5000" in caplog.text


def test_cases_of_all_processes_are_scored_together(
    evaluator: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others = [{"case": "aa", "class": "negative", "predicted": "positive", "probability negative": 0.125}]
    others[0]["probability positive"] = 0.875

    def gather(items: list) -> list:
        return items + (others if items and isinstance(items[0], dict) and "predicted" in items[0] else [])

    monkeypatch.setattr(case_scores, "gather", gather)
    scores = Scores()
    evaluator(CASES[:2], class_scores=scores).run()
    assert scores.calls[0][0].tolist() == [[0.25, 0.75], [0.125, 0.875], [0.75, 0.25]]
    assert scores.calls[0][1].tolist() == [1, 0, 0]
    assert [row["case"] for row in read_classes(tmp_path / "out" / "classes.csv")] == ["a", "aa", "b"]


def test_only_the_first_process_writes(evaluator: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(case_scores.idist, "get_rank", lambda: 1)
    engine = evaluator(CASES, class_scores=Scores(), results_dir=None)
    engine.run()
    assert engine.state.metrics["class accuracy"] == 0.5
    assert not (tmp_path / "out").exists()


def test_a_second_run_forgets_the_first(evaluator: Callable) -> None:
    scores = Scores()
    engine = evaluator(CASES, class_scores=scores)
    engine.run()
    engine.run()
    assert [len(true) for _, true in scores.calls] == [4, 4]


def test_case_scores_are_written_before_classes_are_scored(evaluator: Callable, tmp_path: Path) -> None:
    def fail(probabilities: Tensor, true: Tensor) -> dict[str, float]:
        raise InputError("classes: one name twice")

    with pytest.raises(InputError, match="one name twice"):
        evaluator(CASES, class_scores=fail).run()
    assert len(read_scores(tmp_path / "out" / "scores.csv")) == 4


def test_a_result_is_rounded(evaluator: Callable, tmp_path: Path) -> None:
    evaluator([case("a", 0.1, 1)]).run()
    assert read_result(tmp_path / "out" / "a_class.json")["probabilities"] == {"negative": 0.9, "positive": 0.1}
