"""Test the times of epochs and the estimate for those that remain."""

from __future__ import annotations

import pytest

from common.engines.epoch_clock import EpochClock, count_validations, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "0.042 s"),
        (3.21, "3.2 s"),
        (41.4, "41 s"),
        (99.6, "2 min"),
        (420, "7 min"),
        (12000, "3 h 20 min"),
        (10800, "3 h"),
        (252000, "70 h"),
        (12 * 86400, "12 days"),
    ],
)
def test_a_time_is_short_text(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("val_interval", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("first", [0, 1, 6, 12])
def test_validations_are_those_of_the_trainer(first: int, val_interval: int) -> None:
    last = 12
    after = [epoch for epoch in range(first + 1, last + 1) if epoch % val_interval == 0 or epoch == last]
    assert count_validations(first, last, val_interval) == len(after)


class Hands:
    """Show the times that a test sets."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def epoch(clock: EpochClock, hands: Hands, updates: float, validation: float | None = None) -> float:
    clock.begin_epoch()
    hands.time += updates
    clock.end_updates()
    hands.time += validation or 0
    return clock.end_epoch(validation is not None)


def test_updates_and_validations_are_counted_apart() -> None:
    hands = Hands()
    clock = EpochClock(hands)
    clock.begin_stage()
    assert epoch(clock, hands, 8) == 8
    assert epoch(clock, hands, 12, validation=30) == 42
    # epochs 3 to 6 and a stage of 3, with validations in 4, 6, 2 and 3
    assert clock.time_left([(2, 6), (0, 3)], val_interval=2) == f", {duration(7 * 10 + 4 * 30)} left"
    assert clock.time_left([(2, 6)], None, at_most=True) == ", at most 40 s left"
    assert clock.time_left([(6, 6)], 2) == ""


def test_a_stage_begins_with_its_own_times() -> None:
    hands = Hands()
    clock = EpochClock(hands)
    epoch(clock, hands, 500, validation=500)
    clock.begin_stage()
    epoch(clock, hands, 5)
    assert clock.time_left([(1, 3)], 1) == ", 10 s left"


def test_the_last_ten_epochs_count() -> None:
    hands = Hands()
    clock = EpochClock(hands)
    for seconds in [1000, *[6] * 10]:
        epoch(clock, hands, seconds)
    assert clock.time_left([(0, 10)]) == ", 60 s left"
