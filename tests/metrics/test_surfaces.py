"""Compare distances and areas with a naive implementation without trees, tables and flat arrays."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from common.errors import InputError
from common.metrics import SegmentationScores

SHAPE = (9, 8, 7)
DISTANCES = ["HD95", "ASSD", "ASD", "HD95 (voxels)", "ASSD (voxels)", "ASD (voxels)"]
SURFACES = ["surface Dice", "surface overlap"]
VOLUMES = ["volume (ml)", "true volume (ml)"]


def turn(*angles: float) -> NDArray[np.float64]:
    """Return a rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        about = np.eye(3)
        about[[one, other], [one, other]] = math.cos(angle)
        about[one, other], about[other, one] = -math.sin(angle), math.sin(angle)
        matrix = about @ matrix
    return matrix


TILT = np.array([[1, 0, 0], [0, 1, math.tan(0.35)], [0, 0, 1]])  # a tilted gantry shifts slices along y
GRIDS = {
    "cubes": np.eye(3),
    "anisotropic": np.diag([0.7, 0.9, 5.0]),
    "flipped": np.diag([-0.7, 0.9, -2.5])[:, [1, 2, 0]],
    "oblique": turn(0.3, -0.5, 1.1) @ np.diag([0.8, 1.2, 3.0]),
    "oblique in single precision": (turn(0.3, -0.5, 1.1) @ np.diag([0.8, 1.2, 3.0])).astype(np.float32),
    "tilted gantry": TILT @ np.diag([0.7, 0.9, 5.0]),
    "sheared and oblique": turn(0.2, 0.4, -0.3) @ TILT @ np.diag([1.1, 0.7, 2.0]),
}


def surface(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the voxels of the mask with a neighbour outside the mask or outside the volume."""
    found = []
    for at in np.argwhere(mask):
        for step in itertools.chain(np.eye(3, dtype=int), -np.eye(3, dtype=int)):
            other = at + step
            if (other < 0).any() or (other >= mask.shape).any() or not mask[tuple(other)]:
                found.append(at)
                break
    return np.array(found, np.float64)


def nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([min(math.dist(point, other) for other in others) for point in points])


def naive_distances(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], steps: NDArray) -> dict[str, float]:
    values = {}
    for unit, axes in (("", steps), (" (voxels)", np.eye(3))):
        p, t = surface(prediction) @ axes.T, surface(truth) @ axes.T
        there, back = nearest(p, t), nearest(t, p)
        values["HD95" + unit] = max(np.percentile(there, 95), np.percentile(back, 95))
        values["ASSD" + unit] = np.concatenate([there, back]).mean()
        values["ASD" + unit] = there.mean()
    return values


Box = tuple[tuple[int, int], ...]


def box_surface(box: Box, steps: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the voxel corners on a box's surface, and the area there: a face, a bevelled edge or a cut corner."""
    points, areas = [], []
    for corner in itertools.product(*(range(start, stop + 1) for start, stop in box)):
        outward = [(at == stop) - (at == start) for at, (start, stop) in zip(corner, box)]
        normal = [k for k in range(3) if outward[k]]
        along = [steps[:, k] for k in range(3) if not outward[k]]
        halves = [steps[:, k] * outward[k] / 2 for k in normal]
        if len(normal) == 1:
            area = np.linalg.norm(np.cross(*along))
        elif len(normal) == 2:
            area = np.linalg.norm(np.cross(halves[0] - halves[1], along[0]))
        elif len(normal) == 3:
            area = np.linalg.norm(np.cross(halves[0] - halves[1], halves[0] - halves[2])) / 2
        else:
            continue
        points.append(steps @ corner)
        areas.append(area)
    return np.array(points), np.array(areas)


def naive_surfaces(prediction: Box, truth: Box, steps: NDArray, tolerance: float) -> dict[str, float]:
    (p, area_p), (t, area_t) = box_surface(prediction, steps), box_surface(truth, steps)
    within_p, within_t = area_p[nearest(p, t) <= tolerance].sum(), area_t[nearest(t, p) <= tolerance].sum()
    return {
        "surface Dice": (within_p + within_t) / (area_p.sum() + area_t.sum()),
        "surface overlap": (within_p / area_p.sum() + within_t / area_t.sum()) / 2,
    }


def image(mask: NDArray[np.bool_], steps: NDArray) -> MetaTensor:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, (-31.5, 12.25, 880.0)
    return MetaTensor(torch.from_numpy(mask)[None, None], affine=torch.from_numpy(affine))


def random_box(rng: np.random.Generator) -> Box:
    starts = [int(rng.integers(n - 2)) for n in SHAPE]
    return tuple((start, start + int(rng.integers(1, n - start))) for start, n in zip(starts, SHAPE))


def filled(box: Box) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*bounds) for bounds in box)] = True
    return mask


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("share", [0.03, pytest.param(0.4, marks=pytest.mark.slow)])
def test_distances_of_random_masks_equal_naive_distances(grid: str, share: float) -> None:
    rng = np.random.default_rng(int(100 * share))
    prediction, truth = (rng.random(SHAPE) < share for _ in range(2))

    values = SegmentationScores(DISTANCES)(image(prediction, GRIDS[grid]), torch.from_numpy(truth)[None, None])

    assert values == pytest.approx(naive_distances(prediction, truth, GRIDS[grid]), rel=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_scores_of_random_boxes_equal_naive_scores(grid: str) -> None:
    """In mm, in area and in ml; some boxes are one voxel thick."""
    steps, rng = GRIDS[grid], np.random.default_rng(7)
    for _ in range(8):
        boxes = random_box(rng), random_box(rng)
        prediction, truth = map(filled, boxes)
        tolerance = float(rng.uniform(0.5, 4))

        values = SegmentationScores(DISTANCES + SURFACES + VOLUMES, tolerance=tolerance)(
            image(prediction, steps), torch.from_numpy(truth)[None, None]
        )

        volume = abs(np.linalg.det(steps)) / 1000
        expected = naive_distances(prediction, truth, steps) | naive_surfaces(*boxes, steps, tolerance)
        expected |= {"volume (ml)": prediction.sum() * volume, "true volume (ml)": truth.sum() * volume}
        assert values == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_distances_of_single_voxels_are_between_centres(grid: str) -> None:
    one, other = (1, 2, 3), (4, 6, 5)
    masks = [filled(tuple((at, at + 1) for at in voxel)) for voxel in (one, other)]
    apart = float(np.linalg.norm(GRIDS[grid] @ np.subtract(other, one)))

    values = SegmentationScores(["HD95", "ASSD", "ASD", *SURFACES], tolerance=apart)(
        image(masks[0], GRIDS[grid]), torch.from_numpy(masks[1])[None, None]
    )

    assert values == pytest.approx(dict.fromkeys(["HD95", "ASSD", "ASD"], apart) | dict.fromkeys(SURFACES, 1.0))


@pytest.mark.parametrize("grid", GRIDS)
def test_empty_masks_have_the_same_scores_on_any_grid(grid: str) -> None:
    none, some = image(np.zeros(SHAPE, bool), GRIDS[grid]), image(filled(((1, 3), (2, 5), (3, 4))), GRIDS[grid])
    scores = SegmentationScores(["HD95", "ASSD", "ASD", *SURFACES])

    distances = ["HD95", "ASSD", "ASD"]
    for pair in ((none, some), (some, none)):
        assert scores(*pair) == dict.fromkeys(distances, math.inf) | dict.fromkeys(SURFACES, 0.0)
    assert scores(none, none) == dict.fromkeys(distances, 0.0) | dict.fromkeys(SURFACES, 1.0)


def test_distances_include_the_angle_of_sheared_axes() -> None:
    """Two voxels one slice of 5 mm apart, with slices tilted by 45 degrees: the centres are 7.07 mm apart."""
    steps = np.array([[1, 0, 0], [0, 1, 5], [0, 0, 5.0]])
    one, other = filled(((2, 3), (2, 3), (2, 3))), filled(((2, 3), (2, 3), (3, 4)))
    values = SegmentationScores(["HD95", "volume (ml)"])(image(one, steps), image(other, steps))
    assert values == pytest.approx({"HD95": math.sqrt(50), "volume (ml)": 0.005})
    sideways = filled(((2, 3), (5, 6), (2, 3)))  # back along y where the slice above has been shifted to
    assert SegmentationScores(["HD95"])(image(sideways, steps), image(other, steps))["HD95"] == pytest.approx(
        math.hypot(5, 2)
    )


@pytest.mark.parametrize(
    "steps",
    [np.diag([1, 1, 0.0]), np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]]), np.diag([1, math.nan, 1])],
    ids=["no thickness", "two equal axes", "not a number"],
)
def test_axes_without_a_volume_are_refused(steps: NDArray) -> None:
    mask = image(filled(((1, 3), (2, 5), (3, 4))), steps)
    with pytest.raises(InputError, match=r"affine \[\[.*expected finite values and axes that span a volume"):
        SegmentationScores()(mask, mask)
