from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from scipy.stats import bootstrap, wilcoxon

from common.errors import InputError, UsageError
from common.reporting import compare_paired, holm, paired_difference

NAN = math.nan
RNG = np.random.default_rng(0)
FIRST = np.round(RNG.random(20), 6)
SECOND = np.round(FIRST + RNG.normal(0.05, 0.1, 20), 6)


def rows(column: str, values: list[float]) -> list[dict]:
    return [{"case": f"P{i}", column: value} for i, value in enumerate(values)]


def test_six_better_cases_have_the_least_p() -> None:
    """All 6 signs are equal, which has the probability 2 / 2^6."""
    found = paired_difference([0.0] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (found.pairs, found.left_out, found.note) == (6, 0, "")
    assert found.mean == pytest.approx(0.35)
    assert found.p == 2 / 2**6
    assert 0.1 < found.low < 0.35 < found.high < 0.6


def test_test_and_interval_equal_those_of_scipy() -> None:
    found = paired_difference(FIRST, SECOND)
    difference = np.round(SECOND - FIRST, 6)
    assert found.mean == pytest.approx((SECOND - FIRST).mean())
    assert found.p == pytest.approx(wilcoxon(FIRST, SECOND).pvalue)
    interval = bootstrap((difference,), np.mean, rng=np.random.default_rng(1), n_resamples=20000).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.003)


def test_the_same_cases_give_the_same_interval_again() -> None:
    assert paired_difference(FIRST, SECOND) == paired_difference(FIRST, SECOND)


def test_exchanged_runs_change_the_sign_alone() -> None:
    there, back = paired_difference(FIRST, SECOND), paired_difference(SECOND, FIRST)
    assert (there.mean, there.p) == (-back.mean, back.p)
    assert there.low == pytest.approx(-back.high, abs=0.005)


def test_undefined_scores_are_left_out_with_their_pair() -> None:
    first = [NAN, *FIRST[:8], 0.5, math.inf]
    second = [0.5, *SECOND[:8], NAN, 1.0]
    found = paired_difference(first, second)
    assert (found.pairs, found.left_out) == (8, 3)
    assert found[2:] == paired_difference(FIRST[:8], SECOND[:8])[2:]


@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_fewer_than_six_pairs_have_no_p(pairs: int) -> None:
    found = paired_difference(FIRST[:pairs], SECOND[:pairs])
    assert np.isnan([found.low, found.high, found.p]).all()
    assert math.isnan(found.mean) == (pairs == 0)
    assert "fewer than 6 pairs" in found.note


def test_equal_scores_have_no_p() -> None:
    found = paired_difference(FIRST, FIRST)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert math.isnan(found.p) and "all differences are 0" in found.note


def test_equal_differences_stay_equal_in_binary_fractions() -> None:
    """0.3 - 0.2 and 0.8 - 0.7 differ by 1e-16, which must not rank one above the other."""
    first = [0.2, 0.7, 0.1, 0.5, 0.6, 0.3]
    found = paired_difference(first, [value + 0.1 for value in first])
    assert [found.low, found.mean, found.high] == pytest.approx([0.1] * 3)
    assert found.p == wilcoxon([0.1] * 6).pvalue


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, NAN, 0.01], [0.5, NAN, 0.02]),
        ([0.75, 0.75], [1.0, 1.0]),
        ([0.04, 0.012, 0.012], [0.04, 0.036, 0.036]),
        ([], []),
    ],
)
def test_holm_by_hand(p: list[float], expected: list[float]) -> None:
    assert holm(p) == pytest.approx(expected, nan_ok=True)


def test_holm_covers_all_columns_and_pairs_of_runs() -> None:
    runs = {
        name: [
            {"case": f"P{i}", "Dice": float(FIRST[i] + shift * (i + 1)), "HD95": NAN if i == 3 else float(i * shift)}
            for i in range(8)
        ]
        for name, shift in (("a", 0.0), ("b", 0.01), ("c", 0.02))
    }
    lines = list(csv.DictReader(compare_paired(runs, format="csv").splitlines()))
    assert [(line["score"], line["first"], line["second"]) for line in lines] == [
        (score, *pair) for score in ("Dice", "HD95") for pair in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    assert [(line["pairs"], line["left out"]) for line in lines] == [("8", "0")] * 3 + [("7", "1")] * 3
    p = [float(line["p"]) for line in lines]
    assert p[:3] == [2 / 2**8] * 3
    assert [float(line["p Holm"]) for line in lines] == pytest.approx(holm(p))
    assert "(tests: 6)" in compare_paired(runs)
    (line,) = csv.DictReader(compare_paired({k: runs[k] for k in "ab"}, columns=["Dice"], format="csv").splitlines())
    assert line["p"] == line["p Holm"]
    assert float(line["difference"]) == pytest.approx(0.045)


def test_cases_are_paired_by_name_not_by_order() -> None:
    first, second = rows("Dice", FIRST.tolist()), rows("Dice", SECOND.tolist())
    assert compare_paired({"a": first, "b": second}) == compare_paired({"a": first, "b": second[::-1]})


def test_markdown_table_with_the_methods_below_it() -> None:
    text = compare_paired({"a": rows("Dice", [0.0] * 6), "b": rows("Dice", [0.5] * 5 + [NAN])}, format="markdown")
    table, methods = text.split("\n\n")
    header, line, values = ([cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines())
    assert len(header) == len(line) == len(values)
    found = dict(zip(header, values))
    assert (found["pairs"], found["left out"], found["difference"]) == ("5", "1", "0.5000")
    assert (found["p"], found["p Holm"]) == ("nan", "nan") and "fewer than 6 pairs" in found["note"]
    assert "Wilcoxon" in methods and "9999 resamples" in methods


def test_a_score_that_a_run_lacks_makes_no_pairs() -> None:
    runs = {"a": rows("Dice", [0.5] * 6), "b": rows("IoU", [0.5] * 6)}
    lines = csv.DictReader(compare_paired(runs, format="csv").splitlines())
    assert [(line["score"], line["pairs"], line["left out"]) for line in lines] == [
        ("Dice", "0", "6"),
        ("IoU", "0", "6"),
    ]


def test_different_cases_are_refused_or_cut_to_common_ones() -> None:
    runs = {"a": rows("Dice", FIRST.tolist()), "b": rows("Dice", SECOND.tolist())[:7]}
    with pytest.raises(
        InputError,
        match=r"13 only in a .*; evaluate the same cases, or add --common_cases true$",
    ):
        compare_paired(runs)
    (line,) = csv.DictReader(compare_paired(runs, common_cases=True, format="csv").splitlines())
    assert line["pairs"] == "7"


def test_one_run_or_none_with_the_score_is_refused() -> None:
    first = rows("Dice", FIRST.tolist())
    with pytest.raises(UsageError, match="1 run; expected two or more"):
        compare_paired({"a": first})
    with pytest.raises(InputError, match="no column 'class ECE' in the scores of each case; expected one of Dice"):
        compare_paired({"a": first, "b": first}, columns=["class ECE"])
    with pytest.raises(UsageError, match="--format html"):
        compare_paired({"a": first, "b": first}, format="html")
    with pytest.raises(InputError, match="no scores of each case"):
        compare_paired({"a": [{"case": "P0"}], "b": [{"case": "P0"}]})
