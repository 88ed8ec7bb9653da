"""Decide a claim by paired scores of the same cases.

Reference: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from common.reporting.paired import PairedDifference, holm, paired_difference

from .study import AS_GOOD, Claim, Score

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
NOT_DECIDED, NOT_RUN = "not decided by this much data", "not run"
LEVEL, POWER = 0.05, 0.8

CaseScores = Mapping[str, float]  # score of each case


@dataclass(frozen=True)
class Outcome:
    """Hold the outcome of a claim.

    Args:
        claim: the claim.
        result: word for the outcome.
        difference: paired difference of the first arm minus the second, each the mean of its seeds; None if not run.
        p_holm: p with Holm's correction over all claims.
        by_seed: mean difference of each seed.
        sd: standard deviation over cases of the difference.
    """

    claim: Claim
    result: str
    difference: PairedDifference | None = None
    p_holm: float = math.nan
    by_seed: Sequence[float] = ()
    sd: float = math.nan


def detectable(sd: float, cases: int, tests: int) -> float:
    """Return the mean difference that a paired test detects with a power of 80 %.

    Args:
        sd: standard deviation of the difference over cases.
        cases: number of cases.
        tests: number of claims; the level of 5 %, two-sided, is divided by it.
    """
    return float((norm.ppf(1 - LEVEL / 2 / tests) + norm.ppf(POWER)) * sd / math.sqrt(cases))


def decide(
    claims: Sequence[Claim], scores: Mapping[str, Score], found: Mapping[str, Mapping[str, Mapping[int, CaseScores]]]
) -> list[Outcome]:
    """Return the outcome of each claim.

    A claim ``better`` is supported if the interval lies above 0, p is below 5 % after Holm's correction, and every seed
    has a positive difference. It is not supported if the interval lies below the effect asked for. A claim ``as good``
    is supported if the interval lies above minus the effect, and not supported if it lies below that.

    Args:
        claims: claims of the study.
        scores: scores by name.
        found: scores of the cases, by name of the score, arm and seed; finished trainings alone.
    """
    differences: list[tuple[PairedDifference, list[float], float] | None] = []
    for claim in claims:
        arms = found.get(claim.score, {})
        first, second = arms.get(claim.first, {}), arms.get(claim.second, {})
        seeds = sorted({*first} & {*second})
        differences.append(_difference([first[s] for s in seeds], [second[s] for s in seeds]) if seeds else None)
    adjusted = holm([math.nan if found is None else found[0].p for found in differences])
    return [
        Outcome(claim, NOT_RUN)
        if difference is None
        else Outcome(
            claim, _result(claim, scores[claim.score].effect, p, *difference[:2]), difference[0], p, *difference[1:]
        )
        for claim, difference, p in zip(claims, differences, adjusted)
    ]


def _difference(
    first: Sequence[CaseScores], second: Sequence[CaseScores]
) -> tuple[PairedDifference, list[float], float]:
    names = sorted(set.intersection(*(set(scores) for scores in (*first, *second))))
    a, b = (np.array([[scores[name] for name in names] for scores in arm], float) for arm in (first, second))
    per_case = a.mean(0) - b.mean(0)
    sd = float(np.nanstd(per_case, ddof=1)) if np.isfinite(per_case).sum() > 1 else math.nan
    return paired_difference(b.mean(0), a.mean(0)), [float(np.nanmean(seed)) for seed in a - b], sd


def _result(claim: Claim, effect: float, p: float, difference: PairedDifference, by_seed: Sequence[float]) -> str:
    if claim.kind == AS_GOOD:
        yes, no = difference.low > -effect, difference.high < -effect
    else:
        yes = difference.low > 0 and p < LEVEL and min(by_seed) > 0
        no = difference.high < effect
    return NOT_SUPPORTED if no else SUPPORTED if yes else NOT_DECIDED
