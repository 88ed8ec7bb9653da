"""Test that a resumed training continues exactly, and what it refuses."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from common.engines import Stage
from common.engines.training_folder import STATE_FILE, TrainingFolder
from common.errors import InputError
from common.record import RunRecord, record_of

from ..trainers import assert_same, run_until
from .stages import VOLUMES, Watch, adam, batches, conv, levelled, plateau_of, run, sgd, weighed

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("interrupt", [1, 4, 6, 8])
def test_a_resumed_training_has_the_same_dropout(trainer: Callable, tmp_path: Path, interrupt: int) -> None:
    whole = run(trainer, tmp_path / "whole")
    run(trainer, tmp_path / "parts", interrupt=interrupt)
    torch.rand(5)  # a resumed run is elsewhere in this stream
    resumed = run(trainer, tmp_path / "parts", resume=True)
    assert whole["network"].keys() == resumed["network"].keys()
    assert all(torch.equal(whole["network"][key], resumed["network"][key]) for key in whole["network"])


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


@pytest.mark.parametrize(
    ("key", "value"), [("epoch", "2"), ("epoch", 0), ("stage", 5), ("stages", None), ("loss", None), ("settings", [])]
)
def test_a_state_that_no_training_writes_is_refused(trainer: Callable, tmp_path: Path, key: str, value: Any) -> None:
    run(trainer, tmp_path)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    torch.save({**state, key: value}, tmp_path / STATE_FILE)
    with pytest.raises(InputError, match=f"{key} is .*, which no training writes; put a copy"):
        run(trainer, tmp_path, resume=True)


def test_a_damaged_state_is_refused_with_what_to_do(trainer: Callable, tmp_path: Path) -> None:
    run(trainer, tmp_path)
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:900])
    with pytest.raises(InputError, match=r"not a complete file .*; put a copy .* or train into another --ckpt_dir"):
        run(trainer, tmp_path, resume=True)


def test_the_record_fits_the_weights_at_every_moment(
    trainer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, weights, checked = os.replace, tmp_path / "model.pt", []

    def replace_and_check(source: Path, target: Path) -> None:
        replace(source, target)
        if weights.exists():
            checked.append(record_of(weights))

    monkeypatch.setattr(os, "replace", replace_and_check)
    record = RunRecord({}, {}, {}, None, 0, {}, [], [], [], {}, "")
    levelled(trainer, [3.0, 2.0, 1.0], folder=TrainingFolder(tmp_path, record=record))
    assert len(checked) == 7  # two more epochs with state, record and weights after the first weights
    assert None not in checked


def test_damaged_weights_of_the_last_epoch_are_written_again(trainer: Callable, tmp_path: Path) -> None:
    levelled(trainer, [3.0, 2.0], ckpt_dir=tmp_path)
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[:100])
    levelled(trainer, [3.0, 2.0], ckpt_dir=tmp_path, resume=True)
    assert (tmp_path / "model.pt").read_bytes() == whole


def test_a_complete_training_misses_its_removed_weights(trainer: Callable, tmp_path: Path) -> None:
    levelled(trainer, [2.0, 3.0], ckpt_dir=tmp_path)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(InputError, match=r"model.pt: no such file, but the training is complete"):
        levelled(trainer, [2.0, 3.0], ckpt_dir=tmp_path, resume=True)


def test_a_state_of_another_loss_is_refused(trainer: Callable, tmp_path: Path) -> None:
    weighed(trainer, tmp_path)
    with pytest.raises(InputError, match=r"expected the loss parameters none, found log_variance; resume with"):
        weighed(trainer, tmp_path, resume=True, loss_function=nn.MSELoss())


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
