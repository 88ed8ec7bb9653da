"""Run MONAI's handlers and metrics on a CaseEvaluator, side by side with MONAI's own evaluator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import MeanDice, MetricsSaver, StatsHandler, SurfaceDistance, from_engine
from monai.transforms import AsDiscreted, Compose, KeepLargestConnectedComponentd
from torch import Tensor, nn

from common.engines import CaseEvaluator
from common.errors import CasesFailedError, InputError

from ..trainers import in_two_processes

PAIR = from_engine(["pred", "label"])


class Scaled(nn.Module):
    """Return values that are not labels, and fail for a case above 50."""

    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 50:
            raise MemoryError("no room")
        return 3 * x - 1


def case(name: str, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image, noise = torch.rand(1, 9, 8, 7, generator=generator), torch.rand(1, 9, 8, 7, generator=generator)
    meta = {"filename_or_obj": f"{name}.nii.gz"}
    return {
        "case": name,
        "image": MetaTensor(image, meta=meta),
        "label": MetaTensor((image + 0.3 * noise > 0.7).float(), meta=meta),
    }


CASES = [case(name, seed) for seed, name in enumerate("abcde")]
BAD = {**case("bad", 9), "image": MetaTensor(torch.full((1, 9, 8, 7), 99.0))}


def run(
    kind: Callable[..., Any], cases: list[dict], folder: Path, handlers: list | None = None, **options: Any
) -> Engine:
    """Build an evaluator with metrics, a saver and post-processing, and run it."""
    engine = kind(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(cases, batch_size=1),
        network=Scaled(),
        postprocessing=Compose(
            [AsDiscreted(keys="pred", threshold=0.5), KeepLargestConnectedComponentd(keys="pred", connectivity=1)]
        ),
        key_val_metric={"mean Dice": MeanDice(output_transform=PAIR)},
        additional_metrics={"distance": SurfaceDistance(include_background=True, output_transform=PAIR)},
        val_handlers=[
            MetricsSaver(
                save_dir=str(folder),
                metrics="*",
                metric_details="*",
                batch_transform=lambda batch: [item["image"].meta for item in batch],
                summary_ops="*",
            ),
            *(handlers or []),
        ],
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        engine.run()
    return engine


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_metrics_and_their_files_equal_those_of_monai(tmp_path: Path) -> None:
    ours, monai = (run(kind, CASES, tmp_path / kind.__name__) for kind in (CaseEvaluator, SupervisedEvaluator))

    assert 0 < ours.state.metrics["mean Dice"] < 1
    assert ours.state.metrics == monai.state.metrics
    assert ours.state.metric_details.keys() == monai.state.metric_details.keys() == {"mean Dice", "distance"}
    for name, values in ours.state.metric_details.items():
        assert torch.equal(values, monai.state.metric_details[name])
    assert ours.state.best_metric == monai.state.best_metric == ours.state.metrics["mean Dice"]
    written = files(tmp_path / "CaseEvaluator")
    assert written == files(tmp_path / "SupervisedEvaluator")
    assert "c.nii.gz" in written["mean Dice_raw.csv"]


@pytest.mark.parametrize(
    "event",
    [
        IterationEvents.FORWARD_COMPLETED,
        IterationEvents.MODEL_COMPLETED,
        Events.ITERATION_COMPLETED,
        Events.EPOCH_COMPLETED,
        Events.COMPLETED,
    ],
    ids=str,
)
def test_handlers_see_the_same_as_with_monais_evaluator(event: Any, tmp_path: Path) -> None:
    seen: dict[str, list] = {"CaseEvaluator": [], "SupervisedEvaluator": []}

    class Look:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(event, self)

        def __call__(self, engine: Any) -> None:
            batch, output = engine.state.batch, engine.state.output
            if event == IterationEvents.FORWARD_COMPLETED:  # before both are decollated
                batch, output = [batch], [output]
            for data, result in zip(batch, output, strict=True):
                names = data["case"] if isinstance(data["case"], str) else data["case"][0]
                found = {key: value.sum().item() for key, value in result.items()}
                seen[type(engine).__name__].append((names, {*data}, found, {*engine.state.metrics}))

    for kind in (CaseEvaluator, SupervisedEvaluator):
        run(kind, CASES, tmp_path, [Look()])

    assert seen["CaseEvaluator"] == seen["SupervisedEvaluator"]
    assert [name for name, *_ in seen["CaseEvaluator"]][-1] == "e"
    assert len(seen["CaseEvaluator"]) == (1 if event in (Events.EPOCH_COMPLETED, Events.COMPLETED) else 5)


@pytest.mark.parametrize("place", [0, 2, 5], ids=["first", "middle", "last"])
def test_a_failed_case_is_in_no_metric(place: int, tmp_path: Path) -> None:
    cases = [*CASES[:place], BAD, *CASES[place:]]
    completed: list[dict] = []

    class Completed:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.COMPLETED, lambda engine: completed.append(dict(engine.state.metrics)))

    with pytest.raises(CasesFailedError, match="1 of 6 cases failed: bad") as error:
        run(CaseEvaluator, cases, tmp_path / "ours", [Completed(), ProgressBar()])
    monai = run(SupervisedEvaluator, CASES, tmp_path / "monai")

    assert error.value.status == 1
    assert completed == [monai.state.metrics]
    assert files(tmp_path / "ours") == files(tmp_path / "monai")


def test_without_a_case_the_handlers_metrics_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(CasesFailedError, match="1 of 1 cases failed") as error:
        run(CaseEvaluator, [BAD], tmp_path / "ours")
    assert error.value.status == 3
    assert not (tmp_path / "ours").exists()


def test_statistics_are_logged_of_finished_cases(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def largest(output: list[dict]) -> float:
        return output[0]["pred"].max().item()

    lines = []
    for kind in (CaseEvaluator, SupervisedEvaluator):
        run(kind, CASES, tmp_path, [StatsHandler(name="stats", tag_name="largest", output_transform=largest)])
        lines.append([line.partition(" - ")[2] for line in capsys.readouterr().out.splitlines()])  # without the time
    assert lines[0] == lines[1]
    assert "INFO - Epoch: 1/1, Iter: 5/5 -- largest: 1.0000 " in lines[0]


def test_handlers_see_the_scores_of_the_cases(tmp_path: Path) -> None:
    """In the order of the cases, as MetricsSaver names them."""

    def voxels(prediction: Tensor, truth: Tensor) -> float:
        return prediction.sum().item() + 1000 * truth.sum().item()

    engine = run(
        CaseEvaluator, CASES[::-1], tmp_path / "saved", metrics={"pred": {"voxels": voxels}}, truth_key="label"
    )

    values = engine.state.metric_details["voxels"]
    assert values.shape == (5, 1)
    assert engine.state.metrics["voxels"] == pytest.approx(values.mean().item())
    rows = files(tmp_path / "saved")["voxels_raw.csv"].splitlines()[1:]
    expected = [item["label"].sum().item() for item in CASES[::-1]]
    assert [row.split(",")[0] for row in rows] == [f"{name}.nii.gz" for name in "edcba"]
    assert [float(row.split(",")[1]) // 1000 for row in rows] == expected


def test_the_label_of_a_finished_case_is_its_ground_truth(tmp_path: Path) -> None:
    """The label may be on the network's grid while the finished prediction is on the scan's."""
    cases = [{**item, "truth": item["label"].clone(), "label": item["label"][:, ::2]} for item in CASES]
    metrics = {
        "additional_metrics": {"of truth": MeanDice(output_transform=from_engine(["pred", "truth"]))},
        "key_val_metric": {"of label": MeanDice(output_transform=PAIR)},
    }
    ours = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(cases, batch_size=1),
        network=Scaled(),
        postprocessing=AsDiscreted(keys="pred", threshold=0.5),
        **metrics,
    )
    ours.run()
    assert ours.state.metrics["of truth"] == ours.state.metrics["of label"]
    monai = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(CASES, batch_size=1),
        network=Scaled(),
        postprocessing=AsDiscreted(keys="pred", threshold=0.5),
        key_val_metric={"of label": MeanDice(output_transform=PAIR)},
    )
    monai.run()
    assert ours.state.metrics["of label"] == monai.state.metrics["of label"]


def test_a_handlers_metric_keeps_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scores = {"pred": {"mean Dice": lambda prediction, truth: -1.0}}
    engine = run(CaseEvaluator, CASES, tmp_path, metrics=scores, truth_key="label")
    assert engine.state.metrics["mean Dice"] > 0
    assert "score 'mean Dice': a metric of a handler has the same name" in caplog.text


def test_a_custom_iteration_replaces_the_network(tmp_path: Path) -> None:
    def update(engine: Any, batch: dict) -> dict:
        engine.state.output = {"image": batch["image"], "label": batch["label"], "pred": batch["label"] * 0.9}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    ours, monai = (run(kind, CASES, tmp_path, iteration_update=update) for kind in (CaseEvaluator, SupervisedEvaluator))
    assert ours.state.metrics == monai.state.metrics


def test_an_error_of_a_handler_ends_the_run(tmp_path: Path) -> None:
    def fail(output: list[dict]) -> float:
        raise InputError("a metric without a key")

    with pytest.raises(InputError, match=r"^a metric without a key$"):
        run(CaseEvaluator, CASES, tmp_path, [StatsHandler(name="stats", output_transform=fail)])


def test_a_handler_may_end_the_run_early(tmp_path: Path) -> None:
    class Stop:
        def attach(self, engine: Engine) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate())

    scores = {"pred": {"one": lambda prediction, truth: 1.0}}
    engine = run(CaseEvaluator, CASES, tmp_path, [Stop()], metrics=scores, truth_key="label")
    assert [row["case"] for row in engine.scores.rows] == ["a", "b"]
    assert engine.state.metrics["one"] == 1


def _evaluate(rank: int, cases: list[list[dict]], folder: Path) -> None:
    with pytest.raises(CasesFailedError) as error:
        run(CaseEvaluator, cases[rank], folder)
    assert str(error.value).startswith("1 of ")


@pytest.mark.ddp
@pytest.mark.parametrize(
    "cases",
    [[CASES[:3], [BAD]], [[BAD], CASES[:1]], [[BAD, CASES[0]], []]],
    ids=["the second", "the first", "one has no cases"],
)
def test_metrics_do_not_wait_for_a_process_without_scores(tmp_path: Path, cases: list[list[dict]]) -> None:
    in_two_processes(_evaluate, cases, tmp_path)
