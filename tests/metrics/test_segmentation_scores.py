from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.metrics import (
    DiceMetric,
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
    get_confusion_matrix,
)
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor

from common.errors import InputError
from common.metrics import SegmentationScores, surfaces

CONFUSION = {
    "IoU": "threat score",
    "precision": "precision",
    "PPV": "precision",
    "recall": "recall",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "NPV": "negative predictive value",
    "accuracy": "accuracy",
    "MCC": "matthews correlation coefficient",
}
OVERLAPS = ["Dice", *CONFUSION]
DISTANCES = ["HD95", "ASSD", "ASD"]
DISTANCE_COLUMNS = [*DISTANCES, *(f"{name} (voxels)" for name in DISTANCES)]
SURFACES = ["surface Dice", "surface overlap"]
ALL = [*OVERLAPS, *DISTANCE_COLUMNS, *SURFACES]
SHAPE = (18, 15, 13)
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (0.1, 0.2, 0.3)]


def monai_scores(prediction: Tensor, truth: Tensor, spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    """Return MONAI's scores of two masks ``(1, 1, x, y, z)``, and the surface overlap from its areas."""
    pair = prediction.float(), truth.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty mask
        counts = get_confusion_matrix(*pair)
        values = {"Dice": DiceMetric(ignore_empty=False)(*pair)}
        values |= {name: compute_confusion_matrix_metric(long, counts) for name, long in CONFUSION.items()}
        for unit, sampling in (("", spacing), (" (voxels)", None)):
            kwargs = {"include_background": True, "spacing": sampling}
            values["HD95" + unit] = compute_hausdorff_distance(*pair, percentile=95, **kwargs)
            values["ASSD" + unit] = compute_average_surface_distance(*pair, symmetric=True, **kwargs)
            values["ASD" + unit] = compute_average_surface_distance(*pair, **kwargs)
        by_area = {"spacing": spacing, "use_subvoxels": True}
        values["surface Dice"] = compute_surface_dice(*pair, [tolerance], include_background=True, **by_area)
        edges, distances, areas = get_edge_surface_distance(*(m[0, 0] for m in pair), symmetric=True, **by_area)
        if prediction.any() and truth.any():
            shares = [a[e][d <= tolerance].sum() / a[e].sum() for e, d, a in zip(edges, distances, areas)]
            values["surface overlap"] = torch.stack(shares).mean()
        else:
            values["surface overlap"] = values["surface Dice"]
    return {name: value.item() for name, value in values.items()}


def with_spacing(labels: Tensor, spacing: tuple[float, ...]) -> MetaTensor:
    """Return the labels with this spacing and an oblique affine with a flip."""
    c, s = math.cos(0.4), math.sin(0.4)
    rotation = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = rotation * torch.tensor(spacing, dtype=torch.float64)
    return MetaTensor(labels, affine=affine)


def blob(share: float, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Return random blobs that fill this fraction of the volume."""
    noise = F.avg_pool3d(torch.rand(1, 1, *(n + 4 for n in shape)), 5, stride=1)
    return noise > noise.quantile(1 - share)


def box(*ranges: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> Tensor:
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[(0, 0, *(slice(*bounds) for bounds in ranges))] = True
    return mask


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


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
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


def test_scores_of_a_shifted_cube_equal_those_by_hand() -> None:
    """A cube of 4 voxels a side, and the truth one voxel of 2 mm further along x; each surface has 56 points.

    Of the prediction's, 36 are on the truth's too, the 16 of the outer face are 2 mm away, and the 4 in the middle of
    the opposite face are 1 mm away, sideways. By symmetry it is the same from the truth.
    """
    shape = (9, 8, 8)
    prediction, truth = box((2, 6), (2, 6), (2, 6), shape=shape), box((3, 7), (2, 6), (2, 6), shape=shape)

    values = SegmentationScores([*OVERLAPS, *DISTANCE_COLUMNS])(with_spacing(prediction, (2.0, 1.0, 1.0)), truth)

    n = 9 * 8 * 8
    assert values == pytest.approx(
        dict.fromkeys(["Dice", "precision", "PPV", "recall", "sensitivity"], 48 / 64)
        | dict.fromkeys(["specificity", "NPV"], (n - 80) / (n - 64))
        | {"IoU": 48 / 80, "accuracy": (n - 32) / n, "MCC": (48 * (n - 80) - 16 * 16) / (64 * (n - 64))}
        | {"HD95": 2.0, "ASSD": 36 / 56, "ASD": 36 / 56}
        | {"HD95 (voxels)": 1.0, "ASSD (voxels)": 20 / 56, "ASD (voxels)": 20 / 56}
    )


# Triangles of marching cubes on a cube with voxels of 1 mm: in the middle of a face, an edge, and at a corner.
FACE, EDGE, CORNER = 1.0, math.sqrt(0.5), math.sqrt(3) / 8


def test_surface_scores_are_fractions_of_area() -> None:
    """A cube of 4 voxels a side, and the truth one voxel of 1 mm further along x; all else is within 1 mm.

    Each has two parts that the other does not: its outer face, and the middle of the face that is inside the other.
    """
    prediction, truth = box((2, 6), (2, 6), (2, 6)), box((3, 7), (2, 6), (2, 6))
    whole = 6 * 9 * FACE + 12 * 3 * EDGE + 8 * CORNER
    face = 9 * FACE + 4 * 3 * EDGE + 4 * CORNER

    assert SegmentationScores(SURFACES)(prediction, truth) == {"surface Dice": 1.0, "surface overlap": 1.0}
    half = SegmentationScores(SURFACES, tolerance=0.5)(prediction, truth)
    assert half == pytest.approx(dict.fromkeys(SURFACES, 1 - (face + 9 * FACE) / whole))


def test_surface_scores_weigh_a_large_face_more() -> None:
    """A cube of 4 voxels, 3 mm thick, shifted by one along z.

    Beyond 1 mm of the other are each one's outer face, and the corner in the middle of the face inside the other.
    """
    prediction, truth = box((2, 6), (2, 6), (2, 6)), box((2, 6), (2, 6), (3, 7))
    along, across = math.hypot(1, 3) / 2, math.sqrt(0.5) * 3  # edges of a face of z, and of two other faces
    corner = math.sqrt(1 + 9 + 9) / 8
    whole = 2 * 9 * 1.0 + 4 * 9 * 3.0 + 8 * 3 * along + 4 * 3 * across + 8 * corner
    far = 9 * 1.0 + 4 * 3 * along + 4 * corner + 1.0

    values = SegmentationScores(SURFACES)(with_spacing(prediction, (1.0, 1.0, 3.0)), truth)

    assert values == pytest.approx(dict.fromkeys(SURFACES, 1 - far / whole))


def test_surface_overlap_averages_both_fractions() -> None:
    """The truth is the voxel in the middle of a cube: its corners are more than 1 mm from the cube's."""
    prediction, truth = box((2, 5), (2, 5), (2, 5)), box((3, 4), (3, 4), (3, 4))
    cube, voxel = 6 * 4 * FACE + 12 * 2 * EDGE + 8 * CORNER, 8 * CORNER

    values = SegmentationScores(SURFACES, tolerance=1.0)(prediction, truth)

    assert values == pytest.approx(
        {
            "surface Dice": (6 * 4 * FACE + voxel) / (cube + voxel),
            "surface overlap": (6 * 4 * FACE / cube + 1) / 2,
        }
    )


def test_scores_of_a_shifted_cube_of_16_voxels() -> None:
    shape = (22, 20, 20)
    prediction, truth = (box((x, x + 16), (2, 18), (2, 18), shape=shape) for x in (2, 4))

    values = SegmentationScores(["Dice", "ASSD", *SURFACES])(prediction, truth)

    expected = {"Dice": 0.875, "ASSD": 0.67456} | dict.fromkeys(SURFACES, 0.70433)
    assert values == pytest.approx(expected, abs=5e-6)


def test_a_better_prediction_has_better_scores() -> None:
    truth = box((5, 11), (5, 11), (4, 9))
    rows = [
        SegmentationScores(ALL)(prediction, truth)
        for prediction in (
            truth,
            box((5, 10), (5, 11), (4, 9)),
            box((3, 8), (5, 11), (4, 9)),
            box((12, 18), (9, 15), (8, 13)),
        )
    ]
    for name in ALL:
        column = [row[name] for row in rows]
        assert column == sorted(column, reverse="surface" in name or name in OVERLAPS), name
        assert len(set(column)) > 2, name


def test_asd_is_measured_from_the_prediction() -> None:
    truth = box((2, 3), (2, 3), (2, 3)) | box((12, 13), (2, 3), (2, 3))
    scores = SegmentationScores(["ASD", "ASSD"])

    assert scores(box((2, 3), (2, 3), (2, 3)), truth) == {"ASD": 0.0, "ASSD": 10 / 3}
    assert scores(truth, box((2, 3), (2, 3), (2, 3))) == {"ASD": 5.0, "ASSD": 10 / 3}


REGIONS = {"complete": [1, 2, 4], "core": [4, 1], "enhancing": [4]}


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


def test_volumes_of_both_masks_in_ml() -> None:
    prediction, truth = box((2, 5), (2, 6), (2, 7)), box((2, 4), (2, 6), (2, 7))
    scores = SegmentationScores(["volume (ml)", "true volume (ml)"])
    assert scores(prediction, truth) == pytest.approx({"volume (ml)": 0.060, "true volume (ml)": 0.040})
    spaced = scores(with_spacing(prediction, (2.0, 2.0, 5.0)), truth)
    assert spaced == pytest.approx({"volume (ml)": 1.2, "true volume (ml)": 0.8})


def test_spacing_comes_from_the_truth_if_it_alone_has_one() -> None:
    prediction, truth = box((2, 3), (2, 3), (2, 3)), box((2, 3), (2, 3), (5, 6))
    scores = SegmentationScores(["HD95"])
    assert scores(prediction, with_spacing(truth, (1.0, 1.0, 2.5)))["HD95"] == pytest.approx(7.5)
    one, other = with_spacing(prediction, (1.0, 1.0, 2.0)), with_spacing(truth, (1.0, 1.0, 2.5))
    assert scores(one, other)["HD95"] == pytest.approx(6.0)


def test_spacing_comes_from_the_prediction() -> None:
    prediction, truth = box((2, 3), (2, 3), (2, 3)), box((2, 3), (2, 3), (5, 6))
    scores = SegmentationScores(["HD95", "HD95 (voxels)"])

    assert scores(prediction, truth) == {"HD95": 3.0, "HD95 (voxels)": 3.0}
    assert scores(MetaTensor(prediction), truth) == {"HD95": 3.0, "HD95 (voxels)": 3.0}
    spaced = with_spacing(prediction, (1.0, 1.0, 2.5))
    assert scores(spaced, truth) == pytest.approx({"HD95": 7.5, "HD95 (voxels)": 3.0})
    collated = MetaTensor(prediction, affine=spaced.affine[None])
    collated.is_batch = True
    assert scores(collated, truth) == pytest.approx({"HD95": 7.5, "HD95 (voxels)": 3.0})


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


@pytest.mark.parametrize(("length", "precision", "recall"), [(6, 2 / 3, 1), (2, 1, 1 / 2)], ids=["over", "under"])
def test_precision_and_recall_are_not_swapped(length: int, precision: float, recall: float) -> None:
    """The truth has 64 of 512 voxels, the prediction 96 or 32."""
    truth, prediction = torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8)
    truth[..., :4, :4, :4] = prediction[..., :4, :4, :length] = 1
    found = SegmentationScores(["precision", "recall", "specificity", "NPV"])(prediction, truth)
    negatives, false_alarms, missed = 512 - 64, max(16 * length - 64, 0), max(64 - 16 * length, 0)
    assert found == pytest.approx(
        {
            "precision": precision,
            "recall": recall,
            "specificity": (negatives - false_alarms) / negatives,
            "NPV": (negatives - false_alarms) / (negatives - false_alarms + missed),
        }
    )
