"""Run handlers of other packages on the trainer, side by side with MONAI's own trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, MetricLogger, StatsHandler, TensorBoardStatsHandler
from torch import nn

from common.engines import Stage
from common.engines.batches import ImageAndLabel, samples_of
from common.engines.training_folder import STATE_FILE
from common.handlers import EpochCurves
from common.methods.multirnet import iterative_update

from ..trainers import CPU, assert_same, curves, run_until
from .stages import VOLUMES, batches, conv, sgd


class Look:
    """Keep what an event shows."""

    def __init__(self, event: Any) -> None:
        self.event = event
        self.seen: list[tuple[Any, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(self.event, self)

    def __call__(self, engine: Engine) -> None:
        self.seen.append(copy.deepcopy((engine.state.batch, engine.state.output)))


def with_monai(network: nn.Module, handlers: list) -> None:
    """Train an epoch with MONAI's trainer."""
    SupervisedTrainer(
        device=CPU,
        max_epochs=1,
        train_data_loader=batches(),
        network=network,
        optimizer=sgd(0.1)(network.parameters()),
        loss_function=nn.MSELoss(),
        prepare_batch=ImageAndLabel(),
        train_handlers=handlers,
    ).run()


def with_ours(make: Callable, network: nn.Module, handlers: list, **options: Any) -> None:
    make([Stage("one", network, sgd(0.1), 1)], batches(), VOLUMES, train_handlers=handlers, **options).run()


@pytest.mark.parametrize(
    "event", [IterationEvents.MODEL_COMPLETED, Events.ITERATION_COMPLETED, Events.EPOCH_COMPLETED], ids=str
)
def test_batch_and_output_are_lists_as_with_monais_trainer(trainer: Callable, event: Any) -> None:
    network, ours, monais = conv(), Look(event), Look(event)
    with_monai(copy.deepcopy(network), [monais])
    with_ours(trainer, network, [ours])
    assert_same([list(seen) for seen in ours.seen], [list(seen) for seen in monais.seen])
    assert type(ours.seen[0][1][0]["loss"]) is float


@pytest.mark.filterwarnings("ignore:ignoring non-scalar output")  # MONAI's default shows every entry of a sample
def test_stock_handlers_report_the_same_loss(trainer: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network, found, lines = conv(), {}, {}
    for name, train in (("monai", with_monai), ("ours", lambda *args: with_ours(trainer, *args))):
        found[name] = MetricLogger()
        board = TensorBoardStatsHandler(log_dir=str(tmp_path / name / "tensorboard"))
        train(copy.deepcopy(network), [found[name], StatsHandler(), board])
        board.close()
        shown = capsys.readouterr().out.splitlines()
        lines[name] = [line.rpartition(" INFO - ")[2] for line in shown if "Iter: " in line]
    assert found["ours"].loss == found["monai"].loss
    assert lines["ours"] == lines["monai"] and len(lines["ours"]) == 3
    assert curves(tmp_path / "ours")["loss"] == curves(tmp_path / "monai")["loss"]


def test_a_handler_attached_later_finds_samples(trainer: Callable) -> None:
    engine = trainer([Stage("one", conv(), sgd(0.1), 1)], batches(), VOLUMES)
    found = MetricLogger()
    found.attach(engine)
    engine.run()
    assert [step for step, _ in found.loss] == [1, 2, 3]


def test_without_such_a_handler_batches_stay_whole(trainer: Callable, tmp_path: Path) -> None:
    engine = trainer(
        [Stage("one", conv(), sgd(0.1), 1)], batches(), VOLUMES, train_handlers=[EpochCurves(tmp_path / "curves")]
    )
    engine.run()
    assert engine.state.output["pred"].shape == (2, 1, 2, 2, 2)


def test_looking_changes_neither_weights_nor_score(trainer: Callable, tmp_path: Path) -> None:
    network = conv()
    seen = copy.deepcopy(network)
    with_ours(trainer, network, [], ckpt_dir=tmp_path / "alone")
    with_ours(trainer, seen, [MetricLogger()], ckpt_dir=tmp_path / "seen")
    assert_same(dict(network.state_dict()), dict(seen.state_dict()))
    alone, with_look = (torch.load(tmp_path / name / STATE_FILE, weights_only=True) for name in ("alone", "seen"))
    assert alone["best_metric"] == with_look["best_metric"]


class Passes(nn.Module):
    """Take the result of the pass before."""

    iterations = 1

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv3d(1, 1, 1)

    def forward(self, x: torch.Tensor, previous: torch.Tensor | None = None) -> Any:
        return {"seg": self.body(x)} if self.training else self.body(x)


def test_an_update_in_passes_shows_samples_too(trainer: Callable) -> None:
    found = MetricLogger()
    with_ours(
        trainer,
        Passes(),
        [found],
        iteration_update=iterative_update,
        loss_function=lambda outputs, label: (outputs["seg"] - label).square().mean(),
    )
    assert [type(loss) for _, loss in found.loss] == [float] * 3


def test_a_task_without_samples_is_left_out() -> None:
    outputs = {"label": {"one": torch.ones(2, 1), "none": torch.ones(0, 1)}, "loss": torch.tensor(0.5)}
    assert_same(samples_of(outputs), 2 * [{"label": {"one": torch.ones(1)}, "loss": 0.5}])


def test_loaded_weights_are_those_of_the_beginning_alone(trainer: Callable, tmp_path: Path) -> None:
    """Compare a training that was interrupted and resumed with an uninterrupted one; both load weights."""
    torch.save(conv().state_dict(), tmp_path / "start.pt")
    whole, parts = conv(), conv()

    def train(network: nn.Module, folder: str, interrupt: int | None = None, resume: bool = False) -> None:
        loader = CheckpointLoader(str(tmp_path / "start.pt"), {"model": network})
        stages = [Stage("one", network, sgd(0.1), 3)]
        engine = trainer(stages, batches(), VOLUMES, train_handlers=[loader], ckpt_dir=tmp_path / folder, resume=resume)
        run_until(engine, interrupt)

    train(whole, "whole")
    train(parts, "parts", interrupt=5)
    train(parts, "parts", resume=True)
    assert_same(dict(whole.state_dict()), dict(parts.state_dict()))
