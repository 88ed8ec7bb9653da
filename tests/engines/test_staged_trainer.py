"""The trainer of stages: optimisers and rates, resuming, losses with parameters, lengths, processes."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from common.engines import Plateau, Stage
from common.engines.training_folder import STATE_FILE
from common.errors import InputError
from common.layers import TwoForms

from ..trainers import assert_same, in_two_processes, run_until


class Normalised(TwoForms):
    """Apply batch normalisation and dropout; the dense form returns one tensor."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__(dense)
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


def adam(rate: float, **options: Any) -> Callable:
    return functools.partial(torch.optim.Adam, lr=rate, **options)


def sgd(rate: float) -> Callable:
    return functools.partial(torch.optim.SGD, lr=rate)


def one_over(epochs: Callable[[int], float]) -> Callable:
    """Return a scheduler that multiplies the rate by a function of the epoch, from 1."""
    return lambda optimizer: LambdaLR(optimizer, lambda epoch: epochs(epoch + 1))


class Watch:
    """Record the learning rates of the parameter groups in each update."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        self.rates.append([group["lr"] for group in engine.optimizer.param_groups])


def test_the_optimizer_gets_the_trained_parameters(trainer: Callable) -> None:
    network, watch = conv(), Watch()
    network.bias.requires_grad_(False)
    engine = trainer([Stage("one", network, adam(0.25), 2)], batches(), VOLUMES, train_handlers=[watch])
    engine.run()
    assert type(engine.optimizer) is torch.optim.Adam
    assert [len(group["params"]) for group in engine.optimizer.param_groups] == [1]
    assert watch.rates == 6 * [[0.25]]


def two_groups(network: nn.Module) -> list[dict]:
    return [{"params": [network.weight]}, {"params": [network.bias], "lr_scale": 2.0}]


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


@pytest.mark.parametrize(
    "lr_scheduler",
    [
        functools.partial(CosineAnnealingLR, T_max=4),
        functools.partial(MultiStepLR, milestones=[1, 3]),
        functools.partial(ReduceLROnPlateau, patience=0, threshold=9.0),
        functools.partial(OneCycleLR, max_lr=0.2, total_steps=5),
    ],
    ids=["cosine", "steps", "plateau", "one cycle"],
)
@pytest.mark.parametrize("interrupt", [4, 11])
def test_schedulers_of_torch_resume(trainer: Callable, tmp_path: Path, lr_scheduler: Callable, interrupt: int) -> None:
    whole = scheduled(trainer, tmp_path / "whole", lr_scheduler)
    scheduled(trainer, tmp_path / "parts", lr_scheduler, interrupt)
    scheduled(trainer, tmp_path / "parts", lr_scheduler, resume=True)
    states = [torch.load(tmp_path / folder / STATE_FILE, weights_only=True) for folder in ("whole", "parts")]
    assert_same(states[1], states[0])
    assert len({tuple(rates) for rates in whole.rates}) > 2


def scheduled(
    make: Callable, folder: Path, lr_scheduler: Callable, interrupt: int | None = None, **options: Any
) -> Watch:
    torch.manual_seed(0)
    watch = Watch()
    stage = Stage("one", conv(), sgd(0.1), 4, lr_scheduler)
    run_until(make([stage], batches(), VOLUMES, ckpt_dir=folder, train_handlers=[watch], **options), interrupt)
    return watch


@pytest.mark.parametrize(
    ("optimizer", "lr_scheduler", "message"),
    [
        (adam(0.1), None, "optimizer: Adam here, SGD in"),
        (functools.partial(sgd(0.1), momentum=0.5), None, "optimizer::0::momentum: 0.5 here, 0 in"),
        (sgd(0.1), functools.partial(StepLR, step_size=2), "lr_scheduler: StepLR here, None in"),
    ],
)
def test_a_resumed_training_keeps_its_optimizer(
    trainer: Callable, tmp_path: Path, optimizer: Callable, lr_scheduler: Callable | None, message: str
) -> None:
    trainer([Stage("one", conv(), sgd(0.1), 1)], batches(), VOLUMES, ckpt_dir=tmp_path).run()
    other = Stage("one", conv(), optimizer, 1, lr_scheduler)
    with pytest.raises(InputError, match=message):
        trainer([other], batches(), VOLUMES, ckpt_dir=tmp_path, resume=True).run()


@pytest.mark.parametrize("lr_scheduler", [functools.partial(StepLR, step_size=2, gamma=0.5), None])
def test_a_resumed_training_may_have_another_rate(
    trainer: Callable, tmp_path: Path, lr_scheduler: Callable | None
) -> None:
    stages = [[Stage("one", conv(), sgd(rate), 4, lr_scheduler)] for rate in (0.5, 0.25)]
    run_until(trainer(stages[0], batches(), VOLUMES, ckpt_dir=tmp_path), 5)  # in the second epoch
    watch = Watch()
    trainer(stages[1], batches(), VOLUMES, ckpt_dir=tmp_path, resume=True, train_handlers=[watch]).run()
    rates = [[0.25], [0.125], [0.125]] if lr_scheduler else 3 * [[0.25]]
    assert watch.rates[::3] == rates


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


def run(make: Callable, folder: Path, *, interrupt: int | None = None, resume: bool = False, **options: Any) -> dict:
    torch.manual_seed(0)
    network = Normalised()
    engine = make(
        [Stage("one", network, adam(0.1), 3, one_over(lambda epoch: 1 / epoch))],
        batches(),
        VOLUMES,
        **{"loss_function": squares, "ckpt_dir": folder, "resume": resume, **options},
    )
    run_until(engine, interrupt)
    if interrupt is not None:
        return {}
    return torch.load(folder / STATE_FILE, weights_only=True)


@pytest.mark.parametrize("interrupt", [1, 4, 6, 8])
def test_a_resumed_training_has_the_same_dropout(trainer: Callable, tmp_path: Path, interrupt: int) -> None:
    whole = run(trainer, tmp_path / "whole")
    run(trainer, tmp_path / "parts", interrupt=interrupt)
    torch.rand(5)  # a resumed run is elsewhere in this stream
    resumed = run(trainer, tmp_path / "parts", resume=True)
    assert whole["network"].keys() == resumed["network"].keys()
    assert all(torch.equal(whole["network"][key], resumed["network"][key]) for key in whole["network"])


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


# A loss that is trained.


class Weighed(nn.Module):
    """Weight two losses with trained parameters; the second loss begins with the second epoch."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.full((2,), start))
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        difference = output - target
        losses = torch.stack([difference.square().mean(), (self.epochs[-1] > 1) * difference.abs().mean()])
        return (0.5 * (-self.log_variance).exp() * losses + 0.5 * self.log_variance).sum()


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


def plateau_of(**options: Any) -> Callable:
    return functools.partial(
        Plateau, **{"factor": 0.5, "patience": 1, "threshold": 0.1, "smoothing": 0.25, "lowest": 0.0, **options}
    )


def weighed(make: Callable, folder: Path, interrupt: int | None = None, **options: Any) -> Any:
    """Train two stages; the plateau lowers the rate in every epoch of the second but its first."""
    torch.manual_seed(0)
    loss = options.pop("loss_function", None) or Weighed()
    plateau = options.pop("plateau", plateau_of(threshold=9.0, patience=0))
    stages = [
        Stage("one", conv(), adam(0.01, amsgrad=True, weight_decay=0.1), 3),
        Stage("two", conv(), adam(0.01, amsgrad=True), 4, plateau),
    ]
    engine = make(stages, batches(), VOLUMES, loss_function=loss, ckpt_dir=folder, **options)
    run_until(engine, interrupt)
    return engine


@pytest.mark.parametrize("interrupt", [5, 10, 13, 17, 20])
def test_loss_and_plateau_resume_exactly(trainer: Callable, tmp_path: Path, interrupt: int) -> None:
    whole = weighed(trainer, tmp_path / "whole")
    weighed(trainer, tmp_path / "parts", interrupt)
    parts = weighed(trainer, tmp_path / "parts", resume=True)
    states = [torch.load(tmp_path / folder / STATE_FILE, weights_only=True) for folder in ("whole", "parts")]
    assert_same(states[1], states[0])
    assert states[0]["lr_scheduler"]["mean_loss"] == whole.lr_scheduler.mean_loss == parts.lr_scheduler.mean_loss
    assert whole.optimizer.param_groups[1]["lr"] == 0.01 * 0.5**3
    assert "max_exp_avg_sq" in states[0]["optimizer"]["state"][2]  # of the loss


def test_a_state_without_all_its_entries_is_refused(trainer: Callable, tmp_path: Path) -> None:
    run(trainer, tmp_path)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    del state["lr_scheduler"]
    torch.save(state, tmp_path / STATE_FILE)
    with pytest.raises(InputError, match="found a file without lr_scheduler"):
        run(trainer, tmp_path, resume=True)


def test_a_state_of_another_loss_is_refused(trainer: Callable, tmp_path: Path) -> None:
    weighed(trainer, tmp_path)
    with pytest.raises(InputError, match=r"expected the loss parameters none, found log_variance; resume with"):
        weighed(trainer, tmp_path, resume=True, loss_function=nn.MSELoss())


# The plateau.


class Given(nn.Module):
    """Return the given loss of each epoch, for any output."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values

    def set_epoch(self, epoch: int) -> None:
        self.value = self.values[epoch - 1]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.value + 0 * output.sum()


# The average 1, .625, .53125, .50781, .50195, ... is the least so far by .1 in epochs 1, 2 and 4.
FALLING = [1.0] + 15 * [0.5]
LOWERED = [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


@pytest.mark.parametrize("rate", [0.25, 1e-8])
def test_the_rate_is_lowered_where_the_loss_stays(trainer: Callable, rate: float) -> None:
    watch = Watch()
    stages = [
        Stage("one", conv(), adam(2 * rate), 3, plateau_of(patience=9)),
        Stage("two", conv(), sgd(rate), 12, plateau_of(), parameter_groups=two_groups),
    ]
    trainer(stages, batches(), VOLUMES, loss_function=Given(FALLING), train_handlers=[watch]).run()
    assert watch.rates[:9] == 9 * [[2 * rate]]
    assert watch.rates[9::3] == [[rate * lowered, 2 * rate * lowered] for lowered in LOWERED]


def test_the_stage_ends_below_the_lowest_rate(
    trainer: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stages = [
        Stage("one", conv(), sgd(1.0), 16, plateau_of(lowest=0.125), parameter_groups=two_groups),
        Stage("two", conv(), adam(1.0), 1),
    ]
    options = {"loss_function": Given(FALLING), "ckpt_dir": tmp_path}
    caplog.set_level(logging.INFO, "common.engines")
    engine = trainer(stages, batches(), VOLUMES, **options)
    engine.run()
    assert engine.state.epoch == 12 + 1  # after the twelfth the rate is 1 / 16
    lines = [message for message in caplog.messages if "plateau" in message]
    assert len(lines) == 4
    assert lines[2] == "stage 'one': plateau, the learning rate is now 0.125"
    assert lines[3] == "stage 'one': plateau, the learning rate is now 0.0625, which ends the stage"


def test_a_stage_that_the_plateau_ended_stays_ended(trainer: Callable, tmp_path: Path) -> None:
    def make(**options: Any) -> Any:
        stages = [Stage("one", conv(), adam(1.0), 16, plateau_of(lowest=0.125))]
        return trainer(stages, batches(), VOLUMES, loss_function=Given(FALLING), ckpt_dir=tmp_path, **options)

    make().run()
    again = make(resume=True)
    again.run()
    assert again.state.epoch == 12


@pytest.mark.parametrize(
    "options", [{"factor": 0}, {"factor": 1}, {"smoothing": 1}, {"smoothing": -0.1}, {"patience": -1}, {"lowest": -1}]
)
def test_a_plateau_of_other_values_is_refused(options: dict) -> None:
    (value,) = options.values()
    with pytest.raises(InputError, match=rf"plateau with .*{value}.*: expected"):
        Plateau(adam(0.1)(conv().parameters()), **options)


# The length of a training.


class Level(nn.Module):
    """Return the level given for the epoch in validation, which the fixture scores."""

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = levels
        self.epoch = 0
        self.validated: list[int] = []
        self.body = nn.Sequential(nn.Conv3d(1, 1, 1), nn.Dropout())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.body(x)
        if self.epoch not in self.validated:
            self.validated.append(self.epoch)
        return torch.full_like(x, self.levels[self.epoch - 1])


def levelled(
    make: Callable, levels: list[float], interrupt: int | None = None, rate: float = 0.01, **options: Any
) -> Any:
    """Train one stage with at most one epoch for each level and three updates in each epoch."""
    torch.manual_seed(0)
    network = Level(levels)
    length, patience = options.pop("length", len(levels)), options.pop("patience", None)
    stage = Stage("one", network, adam(rate), length, options.pop("plateau", None), patience, "model.pt")
    engine = make([stage], batches(), VOLUMES, **options)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: setattr(network, "epoch", engine.state.epoch))
    run_until(engine, interrupt)
    return engine


@pytest.mark.parametrize(
    ("interval", "patience", "levels", "validated"),
    [
        (3, None, [9, 8, 7, 6, 5, 4, 3, 2], [3, 6, 8]),
        (9, None, [9, 8, 7, 6, 5, 4, 3, 2], [8]),
        (2, 4, [9, 3, 1, 4, 5, 6, 7, 8], [2, 4, 6]),  # the best, of epoch 3, is not seen
        (3, 2, [9, 9, 4, 9, 3, 9, 9, 9], [3, 5, 6, 7]),  # better where patience would end it, so it goes on
        (3, 2, [9, 9, 4, 3, 5, 9, 9, 9], [3, 5]),
    ],
)
def test_validations_with_patience(
    trainer: Callable, interval: int, patience: int | None, levels: list[float], validated: list[int]
) -> None:
    engine = levelled(trainer, levels, val_interval=interval, patience=patience)
    assert engine.stage.network.validated == validated
    assert engine.state.epoch == validated[-1]
    assert engine.evaluator.state.best_metric == min(levels[epoch - 1] for epoch in validated)


def test_validations_with_a_plateau(trainer: Callable) -> None:
    """Every epoch counts for the plateau, and the last one is validated."""
    options = {"plateau": plateau_of(lowest=0.125), "rate": 1.0, "loss_function": Given(FALLING)}
    engine = levelled(trainer, 16 * [1.0], val_interval=5, **options)
    assert engine.stage.network.validated == [5, 10, 12]
    assert engine.state.epoch == 12


@pytest.mark.parametrize("interrupt", [2, 8, 14, 17])  # in epochs 1, 3, 5, 6
@pytest.mark.parametrize("plateau", [None, plateau_of(threshold=9.0, patience=0)])
def test_validations_resume_exactly(
    trainer: Callable, tmp_path: Path, interrupt: int, plateau: Callable | None
) -> None:
    levels = [9.0, 4.0, 1.0, 5.0, 3.0, 6.0, 2.0, 1.0]
    options = {"val_interval": 2, "patience": 4, "plateau": plateau}
    whole = levelled(trainer, levels, ckpt_dir=tmp_path / "whole", **options)
    assert whole.state.epoch == 6 and whole.stage.network.validated == [2, 4, 6]
    levelled(trainer, levels, interrupt, ckpt_dir=tmp_path / "parts", **options)
    parts = levelled(trainer, levels, ckpt_dir=tmp_path / "parts", resume=True, **options)
    assert parts.state.epoch == 6
    for file in (STATE_FILE, "model.pt"):
        one, other = (torch.load(tmp_path / folder / file, weights_only=True) for folder in ("whole", "parts"))
        assert_same(other, one)


@pytest.mark.parametrize("name", ["max_epochs", "val_interval"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_of_epochs_begin_with_1(trainer: Callable, name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}: expected a number of epochs from 1"):
        trainer([Stage("one", conv(), adam(0.01), 2)], batches(), VOLUMES, **{name: value})


ENDINGS = {
    "length": {"length": 3},
    "patience": {"patience": 2},
    "plateau": {"plateau": plateau_of(threshold=9.0, patience=0, lowest=0.003)},
}


def ended(make: Callable, ending: str, **options: Any) -> Any:
    """Run a training that is complete after three epochs."""
    engine = levelled(make, [1.0] + 15 * [2.0], **ENDINGS[ending], **options)
    assert engine.state.epoch == 3
    return engine


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_complete_training_is_not_run_again(trainer: Callable, ending: str) -> None:
    engine = ended(trainer, ending)
    before = copy.deepcopy(dict(engine.stage.network.state_dict()))
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"already holds training_state\.pt, model\.pt: continue with --resume true"
        ):
            engine.run()
    assert_same(dict(engine.stage.network.state_dict()), before)
    engine.state.max_epochs = 4
    engine.run()
    assert engine.state.epoch == 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_complete_training_that_resumes_stays_complete(trainer: Callable, ending: str) -> None:
    engine = ended(trainer, ending, resume=True)
    engine.run()
    assert engine.state.epoch == engine.state.max_epochs == 3


@pytest.mark.parametrize("ending", ENDINGS)
def test_rounds_after_a_complete_training_have_all_their_epochs(
    trainer: Callable, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()
    engine = ended(trainer, ending, train_handlers=[watch])
    optimizer, engine.val_interval = engine.optimizer, 2
    caplog.clear()
    caplog.set_level(logging.INFO, "common.engines")
    for last in (6, 11):
        engine.state.max_epochs = last
        engine.run()
        assert engine.state.epoch == last
        with pytest.raises(InputError, match="already holds"):
            engine.run()
    assert engine.optimizer is optimizer and len(watch.rates) == 3 * 11
    assert [epoch for epoch in engine.stage.network.validated if epoch > 3] == [4, 6, 8, 10, 11]
    assert ("plateau" in caplog.text) is (ending == "plateau") and "which ends the stage" not in caplog.text


# Several processes.


class Shared(Weighed):
    """Also train a parameter on batches that only one of two processes gets."""

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
