from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from torch import Tensor, nn

from common.engines import Stage
from common.engines.staged_trainer import STATE_FILE

from .conftest import run_until


class TwoForms(nn.Module):
    """A network with batch normalisation and dropout, whose dense form returns one tensor."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__()
        self.dense = dense
        self.body = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout(), nn.Conv3d(2, 1, 1))
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Any:
        self.modes.append((self.dense, self.training))
        return self.body(x) if self.dense else {"logits": self.body(x)}


def squares(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return (outputs["logits"] - targets).square().mean()


VOLUMES = torch.linspace(-1, 1, 6 * 8).reshape(6, 1, 2, 2, 2)
IMAGES = [{"image": image, "label": image.flip(3)} for image in VOLUMES]


def batches() -> DataLoader:
    return DataLoader(IMAGES, batch_size=2)


def conv() -> nn.Module:
    return nn.Conv3d(1, 1, 1)


class Watch:
    """The learning rates of each update's parameter groups."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        self.rates.append([group["lr"] for group in engine.optimizer.param_groups])


def test_the_default_is_adam_at_a_constant_rate(trainer: Callable) -> None:
    network, watch = conv(), Watch()
    network.bias.requires_grad_(False)
    engine = trainer([Stage("one", network, 0.25, 2)], batches(), VOLUMES, train_handlers=[watch])
    engine.run()
    assert type(engine.optimizer) is torch.optim.Adam
    assert [len(group["params"]) for group in engine.optimizer.param_groups] == [1]
    assert watch.rates == 6 * [[0.25]]


def two_groups(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    assert rate == 0.5  # of the first epoch
    return torch.optim.SGD([{"params": [network.weight]}, {"params": [network.bias], "lr_scale": 2.0}], lr=9.0)


def test_the_rate_follows_the_epoch_of_the_stage(trainer: Callable) -> None:
    watch = Watch()
    stages = [
        Stage("one", conv(), 0.01, 1),
        Stage("two", conv(), lambda epoch: 1 / 2**epoch, 3, optimizer=two_groups),
        Stage("three", conv(), 0.5, 1, optimizer=two_groups),
    ]
    trainer(stages, batches(), VOLUMES, train_handlers=[watch]).run()
    assert watch.rates[::3] == [[0.01], [0.5, 1.0], [0.25, 0.5], [0.125, 0.25], [0.5, 1.0]]
    assert watch.rates[1::3] == watch.rates[2::3] == watch.rates[::3]


def test_a_stage_prepares_its_own_batches(trainer: Callable) -> None:
    epochs = []

    def prepare_batch(batch: dict, device: torch.device, non_blocking: bool, *, epoch: int) -> tuple:
        epochs.append(epoch)
        return torch.as_tensor(batch["image"]), 0 * torch.as_tensor(batch["image"])

    stages = [Stage("one", conv(), 0.01, 1), Stage("two", conv(), 0.1, 30, prepare_batch=prepare_batch)]
    engine = trainer(stages, batches(), VOLUMES)
    engine.run()
    assert epochs == [epoch for epoch in range(1, 31) for _ in range(3)]
    assert engine.state.metrics["train_loss"] < 1e-3  # towards the zeros of this batch
    batch = next(iter(batches()))
    _, label = engine.evaluator.prepare_batch(batch, torch.device("cpu"), False)
    assert torch.equal(label, batch["label"])


def test_a_dense_network_is_trained_in_its_other_form(trainer: Callable, tmp_path: Path) -> None:
    network = TwoForms()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    engine = trainer([Stage("one", network, 0.01, 2, weights="model.pt")], batches(), VOLUMES, loss_function=squares)
    engine.run()
    assert network.dense and engine.evaluator.network is network and engine.network is not network
    assert set(network.modes) == {(False, True), (True, False)}
    assert all(a is b for a, b in zip(network.parameters(), engine.network.parameters(), strict=True))
    after = network.state_dict()
    assert all(not torch.equal(after[key], before[key]) for key in before if before[key].is_floating_point())
    saved = torch.load(tmp_path / "models" / STATE_FILE, weights_only=True)["network"]
    assert saved.keys() == after.keys() and all(torch.equal(saved[key], after[key]) for key in saved)


def test_a_network_in_its_only_form_is_trained_as_it_is(trainer: Callable) -> None:
    network = conv()
    engine = trainer([Stage("one", network, 0.01, 1)], batches(), VOLUMES)
    engine.run()
    assert engine.network is network is engine.evaluator.network


def run(make: Callable, folder: Path, *, interrupt: int | None = None, resume: bool = False, **options: Any) -> dict:
    torch.manual_seed(0)
    network = TwoForms()
    engine = make(
        [Stage("one", network, lambda epoch: 0.1 / epoch, 3)],
        batches(),
        VOLUMES,
        **{"loss_function": squares, "ckpt_dir": folder, "resume": resume, **options},
    )
    run_until(engine, interrupt)
    if interrupt is not None:
        return {}
    return torch.load(folder / STATE_FILE, weights_only=True)


@pytest.mark.parametrize("interrupt", [1, 4, 6, 8])
def test_dropout_too_goes_on_as_if_uninterrupted(trainer: Callable, tmp_path: Path, interrupt: int) -> None:
    whole = run(trainer, tmp_path / "whole")
    run(trainer, tmp_path / "parts", interrupt=interrupt)
    torch.rand(5)  # a resumed run is elsewhere in this stream
    resumed = run(trainer, tmp_path / "parts", resume=True)
    assert whole["network"].keys() == resumed["network"].keys()
    assert all(torch.equal(whole["network"][key], resumed["network"][key]) for key in whole["network"])


def test_the_seed_is_that_of_dropout(trainer: Callable, tmp_path: Path) -> None:
    one, same, other = (run(trainer, tmp_path / str(i), seed=seed)["network"] for i, seed in enumerate((1, 1, 2)))
    assert torch.equal(one["body.0.weight"], same["body.0.weight"])
    assert not torch.equal(one["body.0.weight"], other["body.0.weight"])


def test_every_epoch_has_other_dropout(trainer: Callable) -> None:
    masks = []
    network = TwoForms()
    network.body[2].register_forward_hook(lambda module, _, output: masks.append((module.training, output == 0)))
    stage = Stage("one", network, 0.0, 3)
    trainer([stage], [batches().collate_fn(IMAGES)], VOLUMES, loss_function=squares).run()
    assert len({tuple(mask.flatten().tolist()) for training, mask in masks if training}) == 3
