"""Test the outcome of a claim on made-up scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from studies.statistics import NOT_DECIDED, NOT_RUN, NOT_SUPPORTED, SUPPORTED, Outcome, decide, detectable
from studies.study import AS_GOOD, BETTER, Claim, Score

SCORES = {"Dice": Score("Dice", effect=0.02, sd=0.05)}


def outcomes(*differences: float, spread: float, kind: str = BETTER, cases: int = 100) -> list[Outcome]:
    """Decide claims on arms with these mean differences, one seed each, that spread evenly over the cases."""
    noise = np.linspace(-spread, spread, cases)
    found = {"base": {0: {f"P{i}": 0.8 for i in range(cases)}}}
    for number, difference in enumerate(differences):
        found[f"arm{number}"] = {0: {f"P{i}": 0.8 + difference + noise[i] for i in range(cases)}}
    claims = [Claim("it helps", "yes", f"arm{n}", "base", "Dice", kind) for n in range(len(differences))]
    return decide(claims, SCORES, {"Dice": found})


@pytest.mark.parametrize(
    ("difference", "spread", "kind", "expected"),
    [
        (0.05, 0.05, BETTER, SUPPORTED),
        (0.0, 0.05, BETTER, NOT_SUPPORTED),
        (-0.05, 0.05, BETTER, NOT_SUPPORTED),
        (0.005, 0.01, BETTER, NOT_SUPPORTED),  # above 0, but less than the effect asked for
        (0.01, 0.3, BETTER, NOT_DECIDED),
        (0.0, 0.05, AS_GOOD, SUPPORTED),
        (-0.05, 0.05, AS_GOOD, NOT_SUPPORTED),
        (-0.02, 0.05, AS_GOOD, NOT_DECIDED),
    ],
)
def test_the_interval_decides_a_claim(difference: float, spread: float, kind: str, expected: str) -> None:
    (outcome,) = outcomes(difference, spread=spread, kind=kind)
    assert outcome.result == expected
    assert outcome.difference is not None
    assert outcome.difference.low <= difference + 1e-9 and outcome.difference.high >= difference - 1e-9
    assert outcome.difference.pairs == 100 and outcome.by_seed == pytest.approx([difference], abs=1e-9)


def test_holms_correction_counts_every_claim() -> None:
    alone = outcomes(0.035, spread=0.2, cases=64)
    among = outcomes(0.035, 0.0, 0.0, 0.0, 0.0, spread=0.2, cases=64)
    assert alone[0].result == SUPPORTED and 0.01 < alone[0].p_holm < 0.05
    assert among[0].p_holm == pytest.approx(5 * alone[0].p_holm) and among[0].result == NOT_DECIDED


def test_seeds_are_averaged_in_each_case() -> None:
    base = {seed: {f"P{i}": 0.5 for i in range(10)} for seed in (0, 1)}
    arm = {seed: {f"P{i}": 0.5 + sign * 0.2 + 0.06 for i in range(10)} for seed, sign in ((0, 1), (1, -1))}
    arm[2] = {"P0": 1.0}  # a seed that the other arm lacks
    claim = Claim("it helps", "yes", "arm", "base", "Dice")
    (outcome,) = decide([claim], SCORES, {"Dice": {"arm": arm, "base": base}})
    assert outcome.difference is not None and outcome.difference.mean == pytest.approx(0.06)
    assert outcome.by_seed == pytest.approx([0.26, -0.14])
    assert outcome.difference.low > 0 and outcome.p_holm < 0.05
    assert outcome.result == NOT_DECIDED  # one seed contradicts


def test_a_claim_without_a_finished_arm_is_not_run() -> None:
    claim = Claim("it helps", "yes", "arm", "base", "Dice")
    (outcome,) = decide([claim], SCORES, {"Dice": {"arm": {0: {"P0": 1.0}}, "base": {}}})
    assert outcome.result == NOT_RUN and outcome.difference is None and math.isnan(outcome.p_holm)


def test_a_training_that_learned_nothing_decides_nothing() -> None:
    found = {"arm": {0: {f"P{i}": 0.8 + i / 1000 for i in range(20)}}, "base": {0: {f"P{i}": 0.0 for i in range(20)}}}
    (outcome,) = decide([Claim("it helps", "yes", "arm", "base", "Dice")], SCORES, {"Dice": found})
    assert outcome.result == NOT_DECIDED and outcome.failed == ["base"]


def test_few_cases_decide_nothing() -> None:
    assert outcomes(0.05, spread=0.01, cases=5)[0].result == NOT_DECIDED


def test_the_detectable_difference_has_its_power() -> None:
    """Expect (1.960 + 0.842) 0.03 / 10 for one test, and 2.638 instead of 1.960 for six."""
    assert detectable(0.03, 100, 1) == pytest.approx(0.00840, abs=1e-5)
    assert detectable(0.03, 100, 6) == pytest.approx(0.01044, abs=1e-5)
