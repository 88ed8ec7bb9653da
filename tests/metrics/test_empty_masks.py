"""Check the scores of masks of which one or both are empty."""

from __future__ import annotations

import math

import pytest
import torch

from common.metrics import SegmentationScores

from .masks import ALL, DISTANCE_COLUMNS, REGIONS, SHAPE, blob, box, monai_scores


@pytest.mark.parametrize(
    ("prediction", "truth", "overlap", "distance"),
    [(0, 0, 1.0, 0.0), (0, 1, 0.0, 373.13), (1, 0, 0.0, 373.13), (1, 1, 1.0, 0.0)],
    ids=["both empty", "prediction empty, truth full", "prediction full, truth empty", "both full"],
)
def test_empty_masks_follow_the_rule_of_brats(prediction: int, truth: int, overlap: float, distance: float) -> None:
    pair = (torch.full((1, 1, *SHAPE), label) for label in (prediction, truth))

    values = SegmentationScores(ALL, one_empty_distance=373.13)(*pair)

    expected = {name: distance if name in DISTANCE_COLUMNS else overlap for name in ALL}
    assert values == expected  # of the background too: it is full or empty where the foreground is not


@pytest.mark.parametrize("empty", ["both", "prediction", "truth", "neither, one full"])
def test_empty_masks_have_monais_values_if_defined(empty: str) -> None:
    some, none = blob(0.2), torch.zeros(1, 1, *SHAPE)
    prediction, truth = {
        "both": (none, none),
        "prediction": (none, some),
        "truth": (some, none),
        "neither, one full": (~none.bool(), some),
    }[empty]

    values, expected = SegmentationScores(ALL)(prediction, truth), monai_scores(prediction, truth, (1.0, 1.0, 1.0), 1.0)

    defined = {name: value for name, value in expected.items() if not math.isnan(value)}
    assert {name: values[name] for name in defined} == pytest.approx(defined, rel=1e-6, abs=1e-6)
    assert not any(math.isnan(value) for value in values.values())
    undefined = {name: values[name] for name in ALL if name not in defined}
    distances = {name: math.inf if empty != "both" else 0.0 for name in undefined if name in DISTANCE_COLUMNS}
    assert undefined == dict.fromkeys(undefined, float(empty == "both")) | distances


def test_nan_leaves_empty_masks_out() -> None:
    scores = SegmentationScores(
        ALL, both_empty_overlap=math.nan, both_empty_distance=math.nan, one_empty_distance=math.nan
    )
    none, some = torch.zeros(1, 1, *SHAPE), blob(0.2)

    both, one = scores(none, none), scores(none, some)

    assert {name for name in ALL if not math.isnan(both[name])} == {"specificity", "NPV", "accuracy"}
    assert {name for name in ALL if math.isnan(one[name])} == set(DISTANCE_COLUMNS)


def test_each_region_may_be_empty() -> None:
    prediction, truth = torch.zeros(1, 1, *SHAPE), torch.zeros(1, 1, *SHAPE)
    prediction[..., 4:8, 4:8, 4:8] = truth[..., 4:8, 4:8, 4:8] = 2
    truth[..., 5:7, 5:7, 5:7] = 1

    values = SegmentationScores(["Dice", "HD95"], REGIONS, one_empty_distance=99)(prediction, truth)

    assert [*values.values()] == [1.0, 0.0, 1.0, 0.0, 99.0, 0.0]


def test_without_truth_replaces_all_scores_but_volumes() -> None:
    names = ["Dice", "specificity", "ASSD", "surface Dice", "missed", "volume (ml)", "true volume (ml)"]
    scores = SegmentationScores(names, both_empty_distance=7, without_truth=math.nan)
    plain = SegmentationScores(names, both_empty_distance=7)
    none, some = torch.zeros(1, 1, *SHAPE), box((2, 5), (2, 6), (2, 7))

    for prediction in (none, some):
        found = scores(prediction, none)
        assert {name for name, value in found.items() if math.isnan(value)} == {
            name for name in found if "volume" not in name
        }
        assert found["true volume (ml)"] == 0
    for prediction in (none, some):  # the other rules apply where the truth is not empty
        assert scores(prediction, some) == plain(prediction, some)
    assert plain(none, none)["ASSD"] == 7


def test_missed_is_1_for_an_empty_prediction() -> None:
    none, some, other = torch.zeros(1, 1, *SHAPE), box((2, 5), (2, 6), (2, 7)), box((6, 7), (6, 7), (6, 7))
    missed = SegmentationScores(["missed"])
    pairs = [(none, some), (other, some), (some, none), (none, none)]
    assert [missed(prediction, truth)["missed"] for prediction, truth in pairs] == [1.0, 0.0, 0.0, 0.0]
