"""Compare scores with values that were computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor

from common.metrics import SegmentationScores

from .masks import ALL, DISTANCE_COLUMNS, OVERLAPS, SURFACES, box, with_spacing


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
