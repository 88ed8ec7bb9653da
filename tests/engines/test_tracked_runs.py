"""Run MONAI's handler for MLflow on trainer and evaluator, with a stand-in for MLflow's client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import DEFAULT_MLFLOW_SETTINGS
from monai.data import DataLoader
from monai.handlers import MLFlowHandler, from_engine
from torch import nn

from common.engines import CaseEvaluator, Stage
from common.errors import CasesFailedError, InputError

from .stages import VOLUMES, adam, batches, conv


class Client:
    """Keep experiments and runs in memory, with the calls that MONAI's handler makes."""

    runs: list[SimpleNamespace]

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.tracking_uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id=name, lifecycle_stage="active")

    def search_runs(self, experiment: str) -> list[SimpleNamespace]:
        return list(self.runs)

    def create_run(self, experiment_id: str, run_name: str) -> SimpleNamespace:
        info = SimpleNamespace(run_id=len(self.runs), run_name=run_name, status="RUNNING")
        data = SimpleNamespace(params={}, metrics=defaultdict(list))
        self.runs.append(SimpleNamespace(info=info, data=data))
        return self.runs[-1]

    def get_run(self, number: int) -> SimpleNamespace:
        return self.runs[number]

    def log_batch(self, run_id: int, metrics: Sequence[tuple], params: Sequence[tuple], tags: Sequence) -> None:
        data = self.runs[run_id].data
        data.params.update(params)
        for name, value, _, step in metrics:
            data.metrics[name].append((step, value))

    def set_terminated(self, run_id: int, status: str) -> None:
        self.runs[run_id].info.status = status


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Return the MLflow runs of a test: ``info`` has name and status, ``data`` has the curves."""

    def fields(*values: Any) -> tuple:
        return values

    monkeypatch.setattr(Client, "runs", [], raising=False)
    entities = SimpleNamespace(
        RunStatus=SimpleNamespace(FINISHED="FINISHED", to_string=str),
        LifecycleStage=SimpleNamespace(ACTIVE="active"),
        Param=fields,
        Metric=fields,
    )
    monkeypatch.setattr("monai.handlers.mlflow_handler.mlflow", SimpleNamespace(MlflowClient=Client, entities=entities))
    return Client.runs


def handler(engine: str) -> MLFlowHandler:
    """Build the handler with MONAI's settings for trainer, validator or evaluator."""
    settings = dict(DEFAULT_MLFLOW_SETTINGS["configs"][engine])
    for key in ("_target_", "_disabled_", "artifacts", "output_transform"):
        settings.pop(key, None)
    if engine == "trainer":
        settings["output_transform"] = from_engine(["loss"], first=True)
    return MLFlowHandler(**{**settings, "tracking_uri": "https://server", "experiment_name": "ours", "run_name": "one"})


def two_stages() -> list[Stage]:
    return [Stage("one", conv(), adam(0.01), 2), Stage("two", conv(), adam(0.01), 1)]


def test_a_training_of_two_stages_is_one_run(trainer: Callable, runs: list) -> None:
    trainer(two_stages(), batches(), VOLUMES, train_handlers=[handler("trainer")]).run()
    (run,) = runs
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert {step for step, _ in run.data.metrics["train_loss"]} == {1, 2, 3}
    assert [step for step, _ in run.data.metrics["iteration_train_loss"]] == [*range(1, 10)]
    assert [step for step, _ in run.data.metrics["mean"]] == [1, 2, 3]
    epoch = [value for _, value in run.data.metrics["iteration_train_loss"][:3]]
    assert run.data.metrics["train_loss"][0][1] == pytest.approx(sum(epoch) / 3)


@pytest.mark.parametrize("error", [InputError("wrong"), KeyboardInterrupt()], ids=["error", "interruption"])
def test_a_training_that_fails_ends_its_run_as_failed(trainer: Callable, runs: list, error: BaseException) -> None:
    engine = trainer(two_stages(), batches(), VOLUMES, train_handlers=[handler("trainer")])

    def fail() -> None:
        raise error

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), fail)
    with pytest.raises(type(error)):
        engine.run()
    assert [run.info.status for run in runs] == ["FAILED"]


def test_a_refused_training_starts_no_run(trainer: Callable, runs: list) -> None:
    trainer(two_stages(), batches(), VOLUMES).run()
    with pytest.raises(InputError, match="already holds"):
        trainer(two_stages(), batches(), VOLUMES, train_handlers=[handler("trainer")]).run()
    assert not runs


def test_rounds_continue_the_same_run(trainer: Callable, runs: list) -> None:
    engine = trainer([Stage("one", conv(), adam(0.01), 1)], batches(), VOLUMES, train_handlers=[handler("trainer")])
    engine.run()
    engine.state.max_epochs = 2
    engine.run()
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert [step for step, _ in run.data.metrics["train_loss"]] == [1, 2]


class Fragile(nn.Module):
    """Fail for a case above 50."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.max() > 50:
            raise MemoryError("no room")
        return x


def evaluator(values: Sequence[float], **options: Any) -> CaseEvaluator:
    cases = [
        {"case": str(number), "image": torch.full((1, 2, 2, 2), value), "truth": torch.zeros(1, 2, 2, 2)}
        for number, value in enumerate(values)
    ]
    return CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(cases, batch_size=1),
        network=Fragile(),
        metrics={"pred": {"error": lambda prediction, truth: (prediction - truth).mean()}},
        val_handlers=[handler("validator")],
        **options,
    )


def test_an_evaluation_logs_its_scores_and_finishes(runs: list, tmp_path: Path) -> None:
    evaluator([1.0, 2.0], scores_dir=tmp_path).run()
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"error": [(1, 1.5)]}


def test_failed_cases_end_the_run_of_an_evaluation_as_failed(runs: list) -> None:
    with pytest.raises(CasesFailedError):
        evaluator([1.0, 99.0]).run()
    (run,) = runs
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"error": [(1, 1.0)]}
