"""Test what lowers the rate and ends a training: plateau, patience, numbers of epochs, completion."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.engines import Plateau, Stage
from common.errors import InputError

from ..trainers import assert_same
from .stages import FALLING, LOWERED, VOLUMES, Given, Watch, adam, batches, conv, levelled, plateau_of, sgd, two_groups


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
