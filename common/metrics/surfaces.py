"""Surfaces of a predicted and a true mask, the distances between them, and their areas."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from monai.metrics import utils as monai_surfaces
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_ROUNDING = 1e-5  # of a distance: headers hold an affine in single precision


class Counts(NamedTuple):
    """Voxels of the whole volume."""

    tp: int
    fp: int
    fn: int
    tn: int


class Distances(NamedTuple):
    """Distances from the points of each surface to the nearest point of the other.

    ``shared`` points are on both surfaces; neither array holds their distance of 0.
    """

    to_truth: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    shared: int


class Areas(NamedTuple):
    """Areas of the surfaces of prediction and truth, and of what lies within the tolerance of the other surface."""

    prediction: float
    truth: float
    prediction_within: float
    truth_within: float


class Masks:
    """Hold prediction and truth of one region: bits 1 and 2 of one array with a margin of background.

    Args:
        prediction: mask ``(x, y, z)``.
        truth: mask of the same shape.
        n_voxels: of the whole volume, from which both masks may be cropped.
        axes: ``(3, 3)``, upper triangular; its columns are the steps in mm to the next voxel along x, y and z.
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
        """Return the distances between the surface voxels of two masks, neither of which is empty.

        Args:
            in_mm: else in voxels: a step to a neighbour along any axis has length 1.
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
        """Return the areas of the surfaces of two masks, neither of which is empty, in mm².

        Args:
            tolerance: mm; a distance that exceeds it by rounding only is within it.
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
    """Return the steps along the axes of a grid, turned so that they are upper triangular.

    A rotation changes no length, angle or area, and a straight grid becomes its spacing on the diagonal.

    Args:
        steps: ``(3, 3)``; its columns are the steps in mm to the next voxel along x, y and z, and span a volume.
    """
    return np.asarray(np.linalg.cholesky(steps.T @ steps).T, np.float64)


def hausdorff_95(distances: Distances) -> float:
    """Return the larger of the 95th percentiles of the two directions."""
    return max(_percentile_95(d, distances.shared) for d in (distances.to_truth, distances.to_prediction))


def mean_symmetric(distances: Distances) -> float:
    """Return the mean of the distances of both directions, pooled."""
    to_truth, to_prediction, shared = distances
    return float(to_truth.sum() + to_prediction.sum()) / (len(to_truth) + len(to_prediction) + 2 * shared)


def mean_to_truth(distances: Distances) -> float:
    """Return the mean of the distances from the prediction to the truth."""
    return float(distances.to_truth.sum()) / (len(distances.to_truth) + distances.shared)


def surface_dice(areas: Areas) -> float:
    """Return the share of both surfaces, pooled, that lies within the tolerance of the other."""
    return (areas.prediction_within + areas.truth_within) / (areas.prediction + areas.truth)


def surface_overlap(areas: Areas) -> float:
    """Return the mean of the two shares, that of the prediction's surface and that of the truth's."""
    return (areas.prediction_within / areas.prediction + areas.truth_within / areas.truth) / 2


def _surface_voxels(code: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Find the voxels ``(n, 3)`` of the surfaces, and the bits of the masks whose surface each is on.

    A neighbour is a fixed step away in the flat array: the margin keeps the steps from an end of a row to the next row
    out of the masks, and is not on a surface itself.
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
    found = np.flatnonzero(bits != 0)  # several times as fast as of the bits themselves
    return _points(found + margin, code.shape), bits[found]


def _surface_corners(
    code: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Find the corners between voxels that the surfaces pass: of 8 voxels, some inside the mask and some outside.

    Returns:
        their positions ``(n, 3)`` up to a common shift; the bits of the masks whose surface passes each; and for
        prediction and truth the code of the 8 voxels, by which MONAI orders its table of surface elements.
    """
    flat = code.ravel()
    _, n_y, n_z = code.shape
    some, every = flat, flat
    for step in (n_y * n_z, n_z, 1):  # a corner beside the margin at an end of a row sees the margin of the next row
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

    MONAI's table, which is DeepMind's, has the triangles of marching cubes as vectors along their normals in a grid of
    1 mm. The grid's cofactors turn them into those of any grid, sheared or not.
    """
    normals = monai_surfaces._get_neighbour_code_to_normals_table().numpy().astype(np.float64)
    cofactors = np.linalg.det(axes) * np.linalg.inv(axes).T
    return np.linalg.norm(normals @ cofactors.T, axis=-1).sum(axis=-1)


def _area_within(
    points: NDArray[np.float64], bits: NDArray[np.uint8], areas: NDArray[np.float64], own: int, tolerance: float
) -> tuple[float, float]:
    """Return the area of the surface of the mask with bit ``own``, and that within the tolerance of the other's."""
    alone, other = bits == own, _tree(points[bits & (3 - own) != 0])
    bound = np.nextafter(tolerance * (1 + _ROUNDING), math.inf)  # the query finds what is nearer, not what is as near
    near = np.isfinite(other.query(points[alone], distance_upper_bound=bound)[0])
    shared = float(areas[bits == 3].sum())
    return float(areas[alone].sum()) + shared, float(areas[alone][near].sum()) + shared


def _points(flat: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.float64)


def _tree(points: NDArray[np.float64]) -> cKDTree:
    """Make a tree that is quick to build: points on a grid need no balance, and one query repays no tighter nodes."""
    return cKDTree(points, leafsize=48, compact_nodes=False, balanced_tree=False)


def _percentile_95(distances: NDArray[np.float64], n_zeros: int) -> float:
    """Return the percentile by linear interpolation, at a rank in single precision as ``torch.quantile`` has it.

    Among 20 000 distances that moves the rank by up to 0.001, which counts where two distances far apart meet.
    """
    rank = np.float32(0.95) * np.float32(n_zeros + len(distances) - 1)
    lower, upper = math.floor(rank) - n_zeros, math.ceil(rank) - n_zeros
    if upper < 0:
        return 0.0
    ordered = np.partition(distances, (max(lower, 0), upper))
    below = ordered[lower] if lower >= 0 else 0.0
    return float(below + (rank - np.floor(rank)) * (ordered[upper] - below))
