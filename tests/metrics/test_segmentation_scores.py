"""Compare the scores of masks with MONAI's, and check which inputs are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.errors import InputError
from common.metrics import SegmentationScores, surfaces

from .masks import ALL, DISTANCES, OVERLAPS, REGIONS, SHAPE, SURFACES, blob, box, monai_scores, with_spacing

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (0.1, 0.2, 0.3)]


def nested() -> tuple[Tensor, Tensor]:
    outer = box((2, 16), (1, 14), (2, 11))
    return outer & ~box((5, 12), (4, 9), (4, 9)), outer


def similar() -> tuple[Tensor, Tensor]:
    truth = blob(0.3)
    return truth ^ (torch.rand(truth.shape) < 0.02), truth


PAIRS = {
    "blobs": lambda: (blob(0.2), blob(0.2)),
    "similar blobs": similar,
    "small in large": lambda: (blob(0.01), blob(0.6)),
    "noise": lambda: (torch.rand(1, 1, *SHAPE) < 0.05, torch.rand(1, 1, *SHAPE) < 0.05),
    "equal": lambda: (box((3, 9), (4, 9), (2, 8)),) * 2,
    "single voxels": lambda: (box((2, 3), (9, 10), (4, 5)), box((11, 12), (3, 4), (8, 9))),
    "single voxels in corners": lambda: (box((0, 1), (0, 1), (0, 1)), box((17, 18), (14, 15), (12, 13))),
    "neighbours": lambda: (box((5, 6), (5, 6), (5, 6)), box((5, 6), (5, 6), (6, 7))),
    "sheet across x": lambda: (box((4, 5), (0, 15), (0, 13)), box((6, 7), (2, 12), (3, 9))),
    "sheet across z": lambda: (box((0, 18), (0, 15), (12, 13)), box((3, 15), (2, 12), (0, 1))),
    "two voxels thick": lambda: (box((4, 6), (1, 12), (2, 9)), box((5, 7), (1, 12), (2, 9))),
    "touching the border": lambda: (box((0, 7), (0, 6), (0, 5)), box((0, 6), (0, 8), (0, 4))),
    "touching opposite borders": lambda: (box((0, 18), (0, 15), (0, 5)), box((0, 18), (0, 15), (6, 13))),
    "hollow in full": nested,
    "stray voxel": lambda: (
        box((3, 7), (3, 7), (3, 7)) | box((17, 18), (14, 15), (12, 13)),
        box((3, 7), (3, 8), (3, 7)),
    ),
    "all but one voxel": lambda: (~box((9, 10), (7, 8), (6, 7)), ~box((0, 1), (0, 1), (0, 1))),
}


@pytest.mark.parametrize(
    "spacing", [SPACINGS[1], *(pytest.param(s, marks=pytest.mark.slow) for s in (SPACINGS[0], SPACINGS[2]))], ids=str
)
@pytest.mark.parametrize("pair", PAIRS)
def test_scores_equal_monais(pair: str, spacing: tuple[float, ...]) -> None:
    prediction, truth = PAIRS[pair]()
    tolerance = 3 * spacing[0]

    values = SegmentationScores(ALL, tolerance=tolerance)(with_spacing(prediction, spacing), truth)

    assert list(values) == ALL
    assert all(type(value) is float for value in values.values())
    assert values == pytest.approx(monai_scores(prediction, truth, spacing, tolerance), rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_scores_of_a_large_volume_equal_monais() -> None:
    shape = (60, 56, 50)  # the product in MCC passes 64 bits; thousands of points on each surface
    prediction, truth = blob(0.4, shape), blob(0.5, shape)

    values = SegmentationScores(ALL)(with_spacing(prediction, (0.9, 0.9, 3.0)), truth)

    assert values == pytest.approx(monai_scores(prediction, truth, (0.9, 0.9, 3.0), 1.0), rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_percentile_between_two_distances_far_apart() -> None:
    shape = (190, 100, 31)
    truth = box((0, 190), (0, 100), (0, 1), shape=shape)
    prediction = truth | box((0, 100), (0, 10), (30, 31), shape=shape)  # 19 000 points at 0, 1 000 at 30

    value = SegmentationScores(["HD95"])(prediction, truth)["HD95"]

    assert 0 < value < 3
    assert value == pytest.approx(monai_scores(prediction, truth, (1.0, 1.0, 1.0), 1.0)["HD95"], rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_does_not_exceed_the_tolerance(steps: int, dtype: torch.dtype) -> None:
    """Also if the header stores the affine in single precision."""
    shape = (12, 1, 1)
    prediction, truth = box((0, 1), shape=shape), box((steps, steps + 1), shape=shape)
    scores = SegmentationScores(["surface Dice"], tolerance=float(f"0.{steps}"))  # not always steps * 0.1
    affine = with_spacing(prediction, (0.1, 1.0, 1.0)).affine.to(dtype).double()

    assert scores(MetaTensor(prediction, affine=affine), truth) == {"surface Dice": 1.0}
    affine[:3, 0] *= 1.001
    assert scores(MetaTensor(prediction, affine=affine), truth)["surface Dice"] < 1


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_scores_of_regions_equal_monais(dtype: torch.dtype) -> None:
    scores = ["surface Dice", "Dice", "HD95 (voxels)", "HD95", "recall"]
    prediction, truth = (blob(0.5) * torch.randint(5, SHAPE) for _ in range(2))
    prediction[..., 6:12, 3:9, 2:9], truth[..., 5:10, 3:10, 3:9] = 2, 1  # inside the largest region
    prediction[..., 8:11, 5:8, 4:8], truth[..., 7:9, 4:8, 4:8] = 4, 4
    prediction[..., 0, 0, 0], truth[..., -1, -1, -1] = 3, 3  # in no region, and widens the box

    values = SegmentationScores(scores, REGIONS)(with_spacing(prediction.to(dtype), (0.9, 1.1, 2.0)), truth.to(dtype))

    assert list(values) == [f"{score} {region}" for score in scores for region in REGIONS]
    for region, labels in REGIONS.items():
        masks = [torch.isin(labels_of, torch.tensor(labels)) for labels_of in (prediction, truth)]
        expected = monai_scores(*masks, (0.9, 1.1, 2.0), 1.0)
        for score in scores:
            assert values[f"{score} {region}"] == pytest.approx(expected[score], rel=1e-6, abs=1e-6)


def test_without_regions_all_labels_are_foreground() -> None:
    truth = (blob(0.3) * torch.randint(1, 5, SHAPE)).int()
    prediction = (blob(0.3) * torch.randint(1, 5, SHAPE)).int()
    unlabelled = prediction - (prediction == 0).int() * (torch.rand(SHAPE) < 0.1).int()  # -1 is background
    scores = SegmentationScores(ALL)

    assert unlabelled.min() == -1
    assert scores(unlabelled, truth) == scores(prediction > 0, truth > 0)


def test_strided_inputs_work_and_stay_unchanged() -> None:
    prediction, truth = blob(0.2).byte(), blob(0.2).byte()
    before = prediction.clone(), truth.clone()
    strided = torch.from_numpy(np.asfortranarray(prediction[0, 0].numpy()))[None, None]
    scores = SegmentationScores(ALL)

    values = scores(prediction, truth)

    assert scores(strided, truth) == values
    assert torch.equal(prediction, before[0]) and torch.equal(truth, before[1])


def test_all_distances_share_two_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    trees: list[int] = []

    class CountedTree(surfaces.cKDTree):
        def query(self, *args: object, **kwargs: object) -> object:
            trees.append(self.n)
            return super().query(*args, **kwargs)

    monkeypatch.setattr(surfaces, "cKDTree", CountedTree)
    prediction, truth = with_spacing(blob(0.2), (1.0, 1.0, 2.0)), blob(0.2)

    SegmentationScores([*OVERLAPS, *DISTANCES])(prediction, truth)
    assert len(trees) == 2
    SegmentationScores(SURFACES)(prediction, truth)
    assert len(trees) == 2 + 2
    SegmentationScores(ALL)(prediction, truth)
    assert len(trees) == 4 + 6  # between voxels in mm and in voxels, and between corners
    SegmentationScores(OVERLAPS)(prediction, truth)
    assert len(trees) == 10


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (
            (1, 1, 4, 4, 4),
            (1, 1, 4, 4, 5),
            r"\[1, 1, 4, 4, 4\] and truth of shape \[1, 1, 4, 4, 5\]: expected \(1, 1, x",
        ),
        ((1, 4, 4, 4), (1, 4, 4, 4), r"expected \(1, 1, x, y, z\) for both"),
        ((2, 1, 4, 4, 4), (2, 1, 4, 4, 4), r"expected \(1, 1, x, y, z\) for both"),
        ((1, 2, 4, 4, 4), (1, 2, 4, 4, 4), r"expected \(1, 1, x, y, z\) for both"),
    ],
)
def test_wrong_shapes_are_refused(prediction: tuple[int, ...], truth: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationScores()(torch.ones(prediction), torch.ones(truth))


@pytest.mark.parametrize("value", [0.25, 1.5, math.nan])
def test_probabilities_are_refused(value: float) -> None:
    labels = torch.zeros(1, 1, 5, 5, 5)
    broken = labels.clone()
    broken[..., 2, 2, 2] = value

    with pytest.raises(InputError, match=f"prediction: value {value:g}, expected integer labels; give label maps"):
        SegmentationScores()(broken, labels)
    with pytest.raises(InputError, match=f"truth: value {value:g}, expected integer labels"):
        SegmentationScores()(labels, broken)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scores": ["Dice", "HD100"]}, r"HD100.*expected a list of names out of Dice, IoU.*HD95 \(voxels\)"),
        ({"scores": "Dice"}, "expected a list of names"),
        ({"scores": []}, "expected a list of names"),
        ({"scores": ["Dice (voxels)"]}, "expected a list of names"),
        ({"regions": {"core": []}}, "region 'core' has the classes .*expected one or more classes above 0"),
        ({"regions": {"core": [0, 1]}}, r"region 'core' has the classes \[0, 1\]; expected"),
        ({"tolerance": -1.0}, "tolerance -1.0 mm; expected"),
        ({"tolerance": math.inf}, "tolerance inf mm"),
    ],
)
def test_wrong_settings_are_refused(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationScores(**kwargs)
