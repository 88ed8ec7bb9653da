"""Track a training and an evaluation of a bundle with MLflow, and its options without MLflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow
from monai.utils import path_to_sqlite_uri

from common.errors import UsageError, root_cause
from common.options import refuse_unknown_options

from ..workflows import METHOD, PLAIN, TINY, bundles


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that lets MLflow be found or missing."""
    find = importlib.util.find_spec

    def let(there: bool) -> None:
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name, *args: there or None if name == "mlflow" else find(name, *args)
        )

    return let


def test_the_database_lies_beside_the_log_of_a_training(
    workflow: Callable, installed: Callable, tmp_path: Path
) -> None:
    installed(True)
    flow = workflow(PLAIN, "train", tracking="mlflow")
    get = flow.parser.get_parsed_content
    assert get("tracking_uri") == path_to_sqlite_uri(tmp_path / "models" / "mlruns.db")
    assert get("run_name").startswith(f"{PLAIN.name} train 20")
    assert not (tmp_path / "out").exists() and not [*tmp_path.glob("**/config_*.json")]


def test_a_name_that_mlflow_refuses_is_named(workflow: Callable, installed: Callable) -> None:
    installed(True)
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "train", tracking="mlflow", labels={"liver (left)": 1})
    assert "labels: MLflow refuses the name 'liver (left)'" in str(root_cause(error.value))


def test_tracking_without_mlflow_is_refused(workflow: Callable, installed: Callable) -> None:
    installed(False)
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "train", tracking="mlflow")
    assert "MLflow is not installed" in str(root_cause(error.value))


def tracked_runs(uri: str) -> dict[str, Any]:
    """Return the finished MLflow runs by name, with the points (step, value) of each curve."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "ours")
    found = {}
    for run in client.search_runs(experiment.experiment_id):
        assert run.info.status == "FINISHED"
        histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        found[run.info.run_name] = {name: [(p.step, p.value) for p in points] for name, points in histories.items()}
    return found


@pytest.mark.filterwarnings("ignore:.*noload.*loader strategy is deprecated")  # MLflow's use of SQLAlchemy
@bundles
def test_losses_and_scores_arrive_in_a_database(workflow: Callable, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    uri = path_to_sqlite_uri(tmp_path / "all.db")
    options = {"tracking": "mlflow", "tracking_uri": uri, "experiment_name": "ours"}
    training: ConfigWorkflow = workflow(bundle, "train", run_name="training", **options)
    training.run()
    evaluation: ConfigWorkflow = workflow(bundle, "train", "evaluate", run_name="evaluation", **options)
    evaluation.run()
    runs = tracked_runs(uri)
    trained, scored = runs["training"], runs["evaluation"]
    epochs = [*range(1, METHOD[bundle].epochs + 1)]
    assert [step for step, _ in trained["train_loss"]] == epochs
    assert len(trained["iteration_train_loss"]) == len(epochs) * TINY[bundle.name].get("updates_per_epoch", 1)
    regions = {name for name in trained if name.startswith("Dice ")}
    metrics = evaluation.evaluator.state.metrics
    assert regions and regions <= metrics.keys()
    assert scored.keys() == metrics.keys()
    for name, value in metrics.items():
        assert scored[name] == [(1, pytest.approx(value, nan_ok=True))]


def test_options_of_tracking_need_tracking() -> None:
    config = str(PLAIN / "configs" / "train.json")
    with pytest.raises(UsageError, match="--run_name needs experiment tracking; add --tracking mlflow"):
        refuse_unknown_options(["run_name"], config)
