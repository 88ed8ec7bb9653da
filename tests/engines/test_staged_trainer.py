"""Test what a stage trains: its parameters, schedule, batches, form, dropout and a loss with parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    StepLR,
)

from common.engines import Stage
from common.engines.training_folder import STATE_FILE
from common.errors import InputError

from ..trainers import assert_same, in_two_processes
from .stages import (
    IMAGES,
    VOLUMES,
    Normalised,
    Watch,
    Weighed,
    adam,
    batches,
    conv,
    plateau_of,
    run,
    sgd,
    squares,
    two_groups,
)


def test_the_optimizer_gets_the_trained_parameters(trainer: Callable) -> None:
    network, watch = conv(), Watch()
    network.bias.requires_grad_(False)
    engine = trainer([Stage("one", network, adam(0.25), 2)], batches(), VOLUMES, train_handlers=[watch])
    engine.run()
    assert type(engine.optimizer) is torch.optim.Adam
    assert [len(group["params"]) for group in engine.optimizer.param_groups] == [1]
    assert watch.rates == 6 * [[0.25]]


def test_each_stage_starts_its_own_schedule(trainer: Callable) -> None:
    watch = Watch()
    halving = functools.partial(StepLR, step_size=1, gamma=0.5)
    stages = [
        Stage("one", conv(), adam(0.01), 1),
        Stage("two", conv(), sgd(0.5), 3, halving, parameter_groups=two_groups),
        Stage("three", conv(), sgd(0.5), 2, halving, parameter_groups=two_groups),
    ]
    trainer(stages, batches(), VOLUMES, train_handlers=[watch]).run()
    assert watch.rates[::3] == [[0.01], [0.5, 1.0], [0.25, 0.5], [0.125, 0.25], [0.5, 1.0], [0.25, 0.5]]
    assert watch.rates[1::3] == watch.rates[2::3] == watch.rates[::3]


def test_a_stage_prepares_its_own_batches(trainer: Callable) -> None:
    calls = []

    def prepare_batch(batch: dict, device: torch.device, non_blocking: bool, *, epoch: int, update: int) -> tuple:
        calls.append((epoch, update))
        return torch.as_tensor(batch["image"]), 0 * torch.as_tensor(batch["image"])

    stages = [Stage("one", conv(), adam(0.01), 1), Stage("two", conv(), adam(0.1), 30, prepare_batch=prepare_batch)]
    engine = trainer(stages, batches(), VOLUMES)
    engine.run()
    assert calls == [(epoch, update) for epoch in range(1, 31) for update in (1, 2, 3)]
    assert engine.state.metrics["train_loss"] < 1e-3  # the targets are all 0
    batch = next(iter(batches()))
    _, label = engine.evaluator.prepare_batch(batch, torch.device("cpu"), False)
    assert torch.equal(label, batch["label"])


def test_the_stage_trains_the_training_form(trainer: Callable, tmp_path: Path) -> None:
    network = Normalised()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    stage = Stage("one", network, adam(0.01), 2, weights="model.pt")
    engine = trainer([stage], batches(), VOLUMES, loss_function=squares)
    engine.run()
    assert network.dense and engine.evaluator.network is network and engine.network is not network
    assert set(network.modes) == {(False, True), (True, False)}
    assert all(a is b for a, b in zip(network.parameters(), engine.network.parameters(), strict=True))
    after = network.state_dict()
    assert all(not torch.equal(after[key], before[key]) for key in before if before[key].is_floating_point())
    saved = torch.load(tmp_path / "models" / STATE_FILE, weights_only=True)["network"]
    assert saved.keys() == after.keys() and all(torch.equal(saved[key], after[key]) for key in saved)


def test_without_another_form_the_network_itself_trains(trainer: Callable) -> None:
    network = conv()
    engine = trainer([Stage("one", network, adam(0.01), 1)], batches(), VOLUMES)
    engine.run()
    assert engine.network is network is engine.evaluator.network


def test_the_seed_decides_the_dropout(trainer: Callable, tmp_path: Path) -> None:
    one, same, other = (run(trainer, tmp_path / str(i), seed=seed)["network"] for i, seed in enumerate((1, 1, 2)))
    assert torch.equal(one["body.0.weight"], same["body.0.weight"])
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])


def test_every_epoch_has_other_dropout(trainer: Callable) -> None:
    masks = []
    network = Normalised()
    network.body[2].register_forward_hook(lambda module, _, output: masks.append((module.training, output == 0)))
    stage = Stage("one", network, adam(0.0), 3)
    trainer([stage], [batches().collate_fn(IMAGES)], VOLUMES, loss_function=squares).run()
    assert len({tuple(mask.flatten().tolist()) for training, mask in masks if training}) == 3


def test_loss_parameters_train_without_weight_decay(trainer: Callable, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, loss = conv(), Weighed()
    plain, weighed = copy.deepcopy((network, loss))
    stage = Stage("one", network, adam(0.02, weight_decay=0.3), 3)
    trainer([stage], batches(), VOLUMES, loss_function=loss).run()
    step = torch.optim.Adam(
        [
            {"params": list(plain.parameters()), "weight_decay": 0.3},
            {"params": [weighed.log_variance], "weight_decay": 0.0},
        ],
        lr=0.02,
    )
    for epoch in (1, 2, 3):
        weighed.set_epoch(epoch)
        for batch in batches():
            step.zero_grad()
            weighed(plain(batch["image"]), batch["label"]).backward()
            step.step()
    torch.testing.assert_close(dict(network.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(loss.log_variance, weighed.log_variance)
    assert loss.epochs == [1, 2, 3] and loss.log_variance.abs().min() > 0.05
    saved = torch.load(tmp_path / "models" / STATE_FILE, weights_only=True)["loss"]
    assert_same(dict(saved), {"log_variance": loss.log_variance.detach()})


def test_a_loss_trains_on_in_the_next_stage_and_gets_epochs(trainer: Callable) -> None:
    loss = Weighed()
    stages = [Stage("one", conv(), adam(0.1), 2), Stage("two", conv(), adam(0.0), 3)]
    engine = trainer(stages, batches(), VOLUMES, loss_function=loss)
    after_stage = []
    engine.add_event_handler(Events.COMPLETED, lambda: after_stage.append(loss.log_variance.tolist()))
    engine.run()
    assert loss.epochs == [1, 2, 1, 2, 3]
    assert after_stage[0] == after_stage[1] != [0.0, 0.0]


class Shared(Weighed):
    """Train also a parameter on batches that only one of two processes gets."""

    def __init__(self, start: float) -> None:
        super().__init__(start)
        self.offset = nn.Parameter(torch.tensor(start))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        total = super().forward(output, target)
        bright = target.flatten(1).mean(1) > 0
        return total + 0.7 * self.offset * bright.float().mean() if bright.any() else total


PAIRS = [(IMAGES[i], IMAGES[5 - i]) for i in range(3)]  # a dark and a bright one


def shared(make: Callable, folder: Path, batches: list, start: float) -> Any:
    torch.manual_seed(0)
    plateau = plateau_of(threshold=0.02, patience=0)
    stage = Stage("one", conv(), sgd(0.05), 6, plateau)
    engine = make([stage], batches, VOLUMES, loss_function=Shared(start), ckpt_dir=folder)
    engine.run()
    return engine


def _process(rank: int, make: Callable, folder: Path) -> None:
    collate = batches().collate_fn
    engine = shared(make, folder, [collate([pair[rank]]) for pair in PAIRS], start=float(rank))
    content = {"loss": dict(engine.loss_function.state_dict()), "network": dict(engine.stage.network.state_dict())}
    torch.save({**content, **schedule_of(engine)}, folder / f"rank{rank}.pt")


def schedule_of(engine: Any) -> dict[str, float]:
    return {"rate": engine.optimizer.param_groups[0]["lr"], "mean_loss": engine.lr_scheduler.mean_loss}


@pytest.mark.ddp
def test_two_processes_train_the_loss_of_their_mean(trainer: Callable, tmp_path: Path) -> None:
    in_two_processes(_process, trainer, tmp_path)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, two)
    collate = batches().collate_fn
    whole = shared(trainer, tmp_path / "whole", [collate(list(pair)) for pair in PAIRS], start=0.0)
    torch.testing.assert_close(one["loss"], dict(whole.loss_function.state_dict()))
    torch.testing.assert_close(one["network"], dict(whole.stage.network.state_dict()))
    found = schedule_of(whole)
    assert one["rate"] == found["rate"] < 0.05 and one["mean_loss"] == pytest.approx(found["mean_loss"])
    assert one["loss"]["offset"].abs() > 0.05


def test_a_training_without_gradients_ends_after_two_epochs(trainer: Callable) -> None:
    engine = trainer(
        [Stage("one", conv(), sgd(0.1), 9)], batches(), VOLUMES, loss_function=lambda output, _: 0 * output.sum()
    )
    with pytest.raises(InputError, match=r"'one', epoch 2: the training diverged, every gradient is 0;.*learning_rate"):
        engine.run()


def test_an_update_without_gradients_does_not_end_the_training(trainer: Callable) -> None:
    updates = iter(range(6))  # of two epochs; the last one of each, as of a patch without foreground, teaches nothing
    engine = trainer(
        [Stage("one", conv(), sgd(1e-3), 2)],
        batches(),
        VOLUMES,
        loss_function=lambda output, _: (next(updates) % 3 < 2) * output.sum().square(),
    )
    engine.run()
    assert engine.state.epoch == 2


def test_one_epoch_without_gradients_does_not_end_the_training(trainer: Callable) -> None:
    class EverySecond(nn.Module):
        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return (self.epoch % 2) * output.sum().square()

    engine = trainer([Stage("one", conv(), sgd(1e-3), 5)], batches(), VOLUMES, loss_function=EverySecond())
    engine.run()
    assert engine.state.epoch == 5
