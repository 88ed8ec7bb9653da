"""Test stages that begin from other weights, with a frozen encoder or a warm-up of the learning rate."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from common.engines import FineTuning, Stage, StagedTrainer
from common.engines.fine_tuning import FrozenEncoder, encoder_of
from common.engines.training_folder import STATE_FILE
from common.errors import InputError
from common.layers import TwoForms
from common.methods.mamtln import MAMTLN
from common.methods.mmfnet import MMFNet
from common.methods.mpunet import AdditiveUNet, MPUNet
from common.methods.multirnet import MultiRNet
from common.methods.omnet import Cascade, OMNet

from ..trainers import assert_same, in_two_processes, run_until

VOLUMES = torch.linspace(-1, 1, 4 * 8).reshape(4, 1, 2, 2, 2)
IMAGES = [{"image": image, "label": image.flip(3)} for image in VOLUMES]


class Net(TwoForms):
    """Apply an encoder with batch normalisation and dropout, and a head."""

    encoder_modules = ("encoder",)

    def __init__(self) -> None:
        super().__init__(dense=True)
        self.encoder = nn.ModuleList([nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout()])
        self.head = nn.Conv3d(2, 1, 1)

    def forward(self, x: Tensor) -> Any:
        for layer in self.encoder:
            x = layer(x)
        return self.head(x) if self.dense else {"logits": self.head(x)}


def squares(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return (outputs["logits"] - targets).square().mean()


def stage_of(tuning: FineTuning, epochs: int = 4, lr_scheduler: Callable | None = None, **options: Any) -> Stage:
    torch.manual_seed(0)
    adam = functools.partial(torch.optim.AdamW, lr=0.5)
    return Stage("one", Net(), adam, epochs, lr_scheduler, fine_tuning=tuning, weights="model.pt", **options)


def make(trainer: Callable, stage: Stage, folder: Path, **options: Any) -> StagedTrainer:
    engine: StagedTrainer = trainer(
        [stage], DataLoader(IMAGES, batch_size=2), VOLUMES, loss_function=squares, ckpt_dir=folder, **options
    )
    return engine


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / STATE_FILE, weights_only=True)
    return state


def encoder_states(engine: StagedTrainer) -> list[dict[str, Tensor]]:
    """Run the trainer; return the encoder's state before the first and after every epoch."""
    encoder = engine.stages[0].network.encoder
    found = [{key: value.clone() for key, value in encoder.state_dict().items()}]
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: found.append({k: v.clone() for k, v in encoder.state_dict().items()})
    )
    engine.run()
    return found


def test_frozen_encoder_stays_and_then_trains(trainer: Callable, tmp_path: Path) -> None:
    engine = make(trainer, stage_of(FineTuning(freeze_encoder=2)), tmp_path)
    head = engine.stages[0].network.head.weight.clone()
    found = encoder_states(engine)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    assert all(not torch.equal(found[3][key], found[0][key]) for key in found[0])
    assert not torch.equal(engine.stages[0].network.head.weight, head)


def test_encoder_is_free_after_the_training(trainer: Callable, tmp_path: Path) -> None:
    engine = make(trainer, stage_of(FineTuning(freeze_encoder=9)), tmp_path)
    found = encoder_states(engine)
    assert_same(found[-1], found[0])
    network = engine.stages[0].network.train()
    network(VOLUMES)
    assert all(parameter.requires_grad for parameter in network.parameters()) and network.encoder[1].training


def test_parameters_frozen_before_stay_frozen() -> None:
    network = Net()
    network.encoder[0].bias.requires_grad_(False)
    FrozenEncoder(network).thaw()
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == ["encoder.0.bias"]


def rates_of(trainer: Callable, folder: Path, warm_up: int, epochs: int, lr_scheduler: Callable | None) -> list[float]:
    engine = make(trainer, stage_of(FineTuning(warm_up=warm_up), epochs, lr_scheduler), folder)
    rates: list[float] = []

    def note(running: Engine) -> None:
        rates.append(running.optimizer.param_groups[0]["lr"])  # type: ignore[attr-defined]

    engine.add_event_handler(Events.ITERATION_COMPLETED, note)
    engine.run()
    assert rates[::2] == rates[1::2]
    return rates[::2]


def test_warm_up_raises_the_rate_linearly(trainer: Callable, tmp_path: Path) -> None:
    assert rates_of(trainer, tmp_path, 3, 5, None) == [0.125, 0.25, 0.375, 0.5, 0.5]


@pytest.mark.parametrize(
    "lr_scheduler",
    [
        functools.partial(CosineAnnealingLR, T_max=6),
        functools.partial(StepLR, step_size=2, gamma=0.5),
        functools.partial(ReduceLROnPlateau, patience=0, threshold=9.0),
    ],
    ids=["cosine", "steps", "plateau"],
)
def test_warm_up_is_a_factor_on_the_schedule(trainer: Callable, tmp_path: Path, lr_scheduler: Callable) -> None:
    plain = rates_of(trainer, tmp_path / "plain", 0, 5, lr_scheduler)
    warm = rates_of(trainer, tmp_path / "warm", 1, 5, lr_scheduler)
    assert warm == [plain[0] / 2, *plain[1:]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    torch.save(Net().state_dict(), tmp_path / "base.pt")
    return tmp_path / "base.pt"


@pytest.mark.parametrize("interrupt", [1, 3, 5, 7])
def test_a_resumed_fine_tuning_is_exact(
    trainer: Callable, tmp_path: Path, base: Path, interrupt: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two updates an epoch: interrupt the first, the second (frozen), the third and the last epoch."""
    tuning = FineTuning(base, freeze_encoder=2, warm_up=3)
    cosine = functools.partial(CosineAnnealingLR, T_max=6)
    make(trainer, stage_of(tuning, lr_scheduler=cosine), tmp_path / "whole").run()
    run_until(make(trainer, stage_of(tuning, lr_scheduler=cosine), tmp_path / "parts"), interrupt)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        make(trainer, stage_of(tuning, lr_scheduler=cosine), tmp_path / "parts", resume=True).run()
    assert_same(state_of(tmp_path / "parts"), state_of(tmp_path / "whole"))
    assert ("init weights" in caplog.text) == (interrupt < 3)  # no complete epoch: the training begins again


def test_training_begins_from_the_weights(trainer: Callable, tmp_path: Path, base: Path) -> None:
    engine = make(trainer, stage_of(FineTuning(base, freeze_encoder=1), epochs=1), tmp_path / "models")
    engine.run()
    before, after = torch.load(base, weights_only=True), engine.stages[0].network.state_dict()
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same == {key for key in before if key.startswith("encoder.")}


def test_defaults_add_nothing_to_the_state(trainer: Callable, tmp_path: Path) -> None:
    make(trainer, stage_of(FineTuning()), tmp_path).run()
    assert not {"warm_up", "freeze_encoder"} & state_of(tmp_path)["settings"].keys()


@pytest.mark.parametrize("other", [FineTuning(warm_up=2), FineTuning(freeze_encoder=1, warm_up=1), FineTuning()])
def test_a_resumed_training_keeps_its_fine_tuning(trainer: Callable, tmp_path: Path, other: FineTuning) -> None:
    run_until(make(trainer, stage_of(FineTuning(warm_up=1)), tmp_path), 4)
    with pytest.raises(InputError, match=r"(warm_up|freeze_encoder): (\d|None) here, (\d|None) in"):
        make(trainer, stage_of(other), tmp_path, resume=True).run()


def test_another_rate_in_the_warm_up_applies_on_resumption(trainer: Callable, tmp_path: Path) -> None:
    run_until(make(trainer, stage_of(FineTuning(warm_up=3)), tmp_path), 4)
    stage = stage_of(FineTuning(warm_up=3))
    stage.optimizer = functools.partial(torch.optim.AdamW, lr=1.0)
    engine = make(trainer, stage, tmp_path, resume=True)
    rates: list[float] = []
    engine.add_event_handler(Events.ITERATION_STARTED, lambda: rates.append(engine.optimizer.param_groups[0]["lr"]))
    engine.run()
    assert rates[::2] == [0.5, 0.75, 1.0]


@pytest.mark.parametrize("values", [{"freeze_encoder": -1}, {"warm_up": -2}])
def test_negative_numbers_of_epochs_are_refused(values: dict) -> None:
    with pytest.raises(InputError, match="expected a number of epochs from 0"):
        FineTuning(**values)


def test_wrong_file_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "base.pt").write_text("no weights")
    with pytest.raises(InputError, match=r"base\.pt: not a complete file"):
        FineTuning(tmp_path / "base.pt")


def test_network_without_encoder_cannot_freeze_it() -> None:
    sgd = functools.partial(torch.optim.SGD, lr=1.0)
    with pytest.raises(InputError, match=r"Conv3d does not say .* leave --freeze_encoder at 0"):
        Stage("one", nn.Conv3d(1, 1, 1), sgd, 1, fine_tuning=FineTuning(freeze_encoder=1))


NARROW = (2, 2, 4, 4, 8)
NETWORKS = {
    "MAMTLN": lambda: MAMTLN(width=8, planes=(8, 8, 8, 8), blocks=(1, 1, 1, 1), cardinality=2, norm_groups=4),
    "MMFNet": lambda: MMFNet(channels=(2, 4), reduction=2),
    "MPUNet": lambda: MPUNet(channels=NARROW),
    "AdditiveUNet": lambda: AdditiveUNet(channels=(2, 4)),
    "MultiRNet": lambda: MultiRNet(channels=(4, 4), classifier_channels=(4, 4)),
    "OMNet": lambda: OMNet(channels=(4, 4, 4, 4)),
    "Cascade": lambda: Cascade(channels=(4, 4, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_says_what_its_encoder_is(name: str) -> None:
    network = NETWORKS[name]()
    modules = encoder_of(network)
    encoder = {id(p) for module in modules for p in module.parameters()}
    assert encoder < {id(p) for p in network.parameters()}
    assert id(next(p for p in network.parameters() if p.dim() == 5)) in encoder  # the first convolution


def _process(rank: int, trainer: Callable, folder: Path) -> None:
    stage = stage_of(FineTuning(freeze_encoder=1), epochs=2)
    pair = [IMAGES[rank], IMAGES[rank + 2]]
    engine = trainer([stage], DataLoader(pair, batch_size=1), VOLUMES, loss_function=squares, ckpt_dir=folder)
    engine.run()
    torch.save(dict(stage.network.state_dict()), folder / f"rank{rank}.pt")


@pytest.mark.ddp
def test_two_processes_thaw_the_encoder_alike(trainer: Callable, tmp_path: Path) -> None:
    in_two_processes(_process, trainer, tmp_path)
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(one, two)
    before = stage_of(FineTuning()).network.state_dict()
    assert not torch.equal(one["encoder.0.weight"], before["encoder.0.weight"])
