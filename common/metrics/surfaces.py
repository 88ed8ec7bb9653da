"""Measure the distances and areas of the surfaces of a predicted mask and a ground truth mask."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from monai.metrics import utils as monai_surfaces
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_ROUNDING = 1e-5  # relative error of a distance, since headers store the affine in single precision


class Counts(NamedTuple):
    """Hold the numbers of true and false positive and negative voxels of the whole volume."""

    tp: int
    fp: int
    fn: int
    tn: int


class Distances(NamedTuple):
    """Hold the distances from the points of each surface to the nearest point of the other.

    ``shared`` is the number of points on both surfaces. Their distance of 0 is in neither array.
    """

    to_truth: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    shared: int


class Areas(NamedTuple):
    """Hold the areas in mm² of both surfaces, whole and within the tolerance of the other surface."""

    prediction: float
    truth: float
    prediction_within: float
    truth_within: float


class Masks:
    """Hold the masks of prediction and ground truth of one region.

    They are the bits 1 and 2 of one array, with a margin of background around it.

    Args:
        prediction: mask ``(x, y, z)``.
        truth: mask of the same shape.
        n_voxels: number of voxels of the whole volume, from which both masks may be cropped.
        axes: upper triangular matrix ``(3, 3)``; its columns are the steps in mm to the next voxel along x, y and z.
    """

    def __init__(
        self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_], n_voxels: int, axes: NDArray[np.float64]
    ) -> None:
        self._code = np.zeros([n + 2 for n in prediction.shape], np.uint8)
        inside = self._code[1:-1, 1:-1, 1:-1]
        np.left_shift(truth, 1, out=inside, dtype=np.uint8)
        inside |= prediction
        fp, fn, tp = (int(np.count_nonzero(self._code == bits)) for bits in (1, 2, 3))
        self.counts = Counts(tp, fp, fn, n_voxels - tp - fp - fn)
        self._axes = axes
        self._voxels: tuple[NDArray[np.float64], NDArray[np.uint8]] | None = None
        self._distances: dict[bool, Distances] = {}
        self._areas: dict[float, Areas] = {}

    def distances(self, in_mm: bool) -> Distances:
        """Return the distances between the surface voxels of both masks, which must not be empty.

        Args:
            in_mm: whether distances are in mm, or in voxels: neighbours along any axis are 1 voxel apart.
        """
        if in_mm not in self._distances:
            if self._voxels is None:
                self._voxels = _surface_voxels(self._code)
            points, bits = self._voxels
            points = points @ self._axes.T if in_mm else points
            on_prediction, on_truth = (_tree(points[bits & b != 0]) for b in (1, 2))
            self._distances[in_mm] = Distances(
                on_truth.query(points[bits == 1])[0],
                on_prediction.query(points[bits == 2])[0],
                int(np.count_nonzero(bits == 3)),
            )
        return self._distances[in_mm]

    def areas(self, tolerance: float) -> Areas:
        """Return the surface areas of both masks, which must not be empty, in mm².

        Args:
            tolerance: largest distance in mm; a distance that exceeds it by a rounding error counts as within.
        """
        if tolerance not in self._areas:
            points, bits, *codes = _surface_corners(self._code)
            points = points @ self._axes.T
            table = _areas_of_codes(self._axes)
            (whole_p, within_p), (whole_t, within_t) = (
                _area_within(points, bits, table[code], own, tolerance) for own, code in zip((1, 2), codes)
            )
            self._areas[tolerance] = Areas(whole_p, whole_t, within_p, within_t)
        return self._areas[tolerance]


def triangular_axes(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the steps along the axes of a grid, rotated so that their matrix is upper triangular.

    A rotation changes no length, angle or area. For perpendicular axes, the spacing is on the diagonal.

    Args:
        steps: matrix ``(3, 3)`` that is not singular; its columns are the steps in mm to the next voxel along x, y, z.
    """
    return np.asarray(np.linalg.cholesky(steps.T @ steps).T, np.float64)


def hausdorff_95(distances: Distances) -> float:
    """Return the larger of the 95th percentiles of the two directions."""
    return max(_percentile_95(d, distances.shared) for d in (distances.to_truth, distances.to_prediction))


def mean_symmetric(distances: Distances) -> float:
    """Return the mean of the pooled distances of both directions."""
    to_truth, to_prediction, shared = distances
    return float(to_truth.sum() + to_prediction.sum()) / (len(to_truth) + len(to_prediction) + 2 * shared)


def mean_directed(distances: Distances) -> float:
    """Return the mean of the distances from the prediction's surface to that of the ground truth."""
    return float(distances.to_truth.sum()) / (len(distances.to_truth) + distances.shared)


def surface_dice(areas: Areas) -> float:
    """Return the fraction of the pooled area of both surfaces within the tolerance of the other surface."""
    return (areas.prediction_within + areas.truth_within) / (areas.prediction + areas.truth)


def surface_overlap(areas: Areas) -> float:
    """Return the mean of the fractions of each surface within the tolerance of the other surface."""
    return (areas.prediction_within / areas.prediction + areas.truth_within / areas.truth) / 2


def _surface_voxels(code: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return the surface voxels ``(n, 3)``, and for each the bits of the masks that it is a surface voxel of.

    A neighbour is a fixed step away in the flat array. The margin of background is never on a surface, so a step from
    the end of a row to the next row does no harm.
    """
    flat = code.ravel()
    _, n_y, n_z = code.shape
    margin = n_y * n_z
    here = flat[margin:-margin]
    interior = here.copy()
    for step in (margin, n_z, 1):
        interior &= flat[margin + step : flat.size - margin + step]
        interior &= flat[margin - step : flat.size - margin - step]
    bits = here ^ interior
    found = np.flatnonzero(bits != 0)  # several times faster than flatnonzero(bits)
    return _points(found + margin, code.shape), bits[found]


def _surface_corners(
    code: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the corners that a surface passes: of the 8 voxels around, some are inside the mask, some outside.

    Returns:
        positions ``(n, 3)`` up to a common shift; for each corner the bits of the masks with a surface there; and for
        prediction and ground truth the code of the 8 voxels, the index into MONAI's table of surface elements.
    """
    flat = code.ravel()
    _, n_y, n_z = code.shape
    some, every = flat, flat
    for step in (n_y * n_z, n_z, 1):  # steps past the end of a row meet the margin of the next row
        some, every = some[:-step] | some[step:], every[:-step] & every[step:]
    bits = some ^ every
    found = np.flatnonzero(bits != 0)
    codes = np.zeros((2, len(found)), np.uint8)
    for x, y, z in np.ndindex(2, 2, 2):
        corner = flat[found + (x * n_y + y) * n_z + z]
        weight = np.uint8(128 >> (4 * x + 2 * y + z))
        codes[0] |= (corner & 1) * weight
        codes[1] |= (corner >> 1) * weight
    return _points(found, code.shape), bits[found], codes[0], codes[1]


def _areas_of_codes(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area in mm² of the surface in a cell of 8 voxels, for each of its 256 codes.

    MONAI's table, which is DeepMind's, has the triangles of marching cubes as normal vectors for a grid of 1 mm. The
    matrix of cofactors transforms them to any grid, sheared or not.
    """
    normals = monai_surfaces._get_neighbour_code_to_normals_table().numpy().astype(np.float64)
    cofactors = np.linalg.det(axes) * np.linalg.inv(axes).T
    return np.linalg.norm(normals @ cofactors.T, axis=-1).sum(axis=-1)


def _area_within(
    points: NDArray[np.float64], bits: NDArray[np.uint8], areas: NDArray[np.float64], own: int, tolerance: float
) -> tuple[float, float]:
    """Return the area of one mask's surface, and the part of it within the tolerance of the other's surface."""
    alone, other = bits == own, _tree(points[bits & (3 - own) != 0])
    bound = np.nextafter(tolerance * (1 + _ROUNDING), math.inf)  # the query leaves out a distance equal to the bound
    near = np.isfinite(other.query(points[alone], distance_upper_bound=bound)[0])
    shared = float(areas[bits == 3].sum())
    return float(areas[alone].sum()) + shared, float(areas[alone][near].sum()) + shared


def _points(flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)


def _tree(points: NDArray[np.float64]) -> cKDTree:
    """Return a tree that is quick to build; for one query on grid points, a balanced or compact tree does not pay."""
    return cKDTree(points, leafsize=48, compact_nodes=False, balanced_tree=False)


def _percentile_95(distances: NDArray[np.float64], n_zeros: int) -> float:
    """Return the 95th percentile by linear interpolation, with a rank in single precision as in ``torch.quantile``.

    Among 20,000 distances, single precision moves the rank by up to 0.001. That matters between two distances that are
    far apart.
    """
    rank = np.float32(0.95) * np.float32(n_zeros + len(distances) - 1)
    lower, upper = math.floor(rank) - n_zeros, math.ceil(rank) - n_zeros
    if upper < 0:
        return 0.0
    ordered = np.partition(distances, (max(lower, 0), upper))
    below = ordered[lower] if lower >= 0 else 0.0
    return float(below + (rank - np.floor(rank)) * (ordered[upper] - below))
