"""Every score of a segmented case from one pass over its two label maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import InputError
from ..labels import class_regions

_VOXELS = " (voxels)"


class SegmentationScores:
    """Overlap and surface distances of a predicted label map and the truth, one value per score and region.

    The values are those of MONAI 1.6.1, which passes over the volume once per metric and lacks surface overlap. A
    surface is the voxels of a mask that have one of their 6 neighbours outside it or outside the volume. P and T: the
    surfaces of prediction and truth.

    ===============  ====================================================================================  ========
    score            meaning                                                                               unit
    ===============  ====================================================================================  ========
    Dice             2 TP / (2 TP + FP + FN)                                                               0 to 1
    IoU              TP / (TP + FP + FN)                                                                   0 to 1
    precision        TP / (TP + FP); also as ``PPV``                                                       0 to 1
    recall           TP / (TP + FN); also as ``sensitivity``                                               0 to 1
    specificity      TN / (TN + FP)                                                                        0 to 1
    NPV              TN / (TN + FN)                                                                        0 to 1
    accuracy         (TP + TN) / all voxels of the volume                                                  0 to 1
    MCC              (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))                       -1 to 1
    HD95             the larger of the 95th percentiles of the distances from P to T and from T to P       mm
    ASSD             mean of the distances from P to T and from T to P, pooled                             mm
    ASD              mean of the distances from P to T                                                     mm
    surface Dice     share of the points of P and T, pooled, within ``tolerance`` of the other surface     0 to 1
    surface overlap  mean of two such shares, that of the points of P and that of the points of T          0 to 1
    missed           1 if the prediction is empty and the truth is not, else 0; its mean is a share        0 or 1
    ===============  ====================================================================================  ========

    HD95, ASSD and ASD exist in voxels as well, as ``HD95 (voxels)``: a step to a neighbour along any axis has length 1.
    ``volume (ml)`` and ``true volume (ml)`` are the sizes of the two masks.

    Both surface scores count voxels, as MONAI's surface Dice does without ``use_subvoxels``; with it, the points lie at
    corners of voxels, and each counts by the area of the surface around it. A cube of 16 voxels a side and one shifted
    by 2, at 1 mm, have 0.70414 of both scores by voxels and 0.70433 of both by areas. Surface overlap is MultiR-Net's
    ASO (eq. 12) with the sizes of the surfaces below the fraction lines; as printed, with unions there, it could not
    exceed 0.5, and the paper reports more.

    Empty masks, where a quotient is 0 / 0 or a distance has no other end:

    - both empty: ``both_empty_overlap`` for Dice, IoU, precision, recall, MCC and the surface scores,
      ``both_empty_distance`` for distances; specificity, NPV and accuracy are 1.
    - exactly one empty: 0 for Dice, IoU, precision, recall, MCC and the surface scores, ``one_empty_distance`` for
      distances.
    - with ``without_truth``, that value for all scores of a region that the truth does not have, whatever the
      prediction. Volumes stay: that of the prediction is then all false alarm.
    - a mask that fills the volume, so that specificity, NPV or MCC is 0 / 0: 1 if the masks are equal, else 0.

    The BraTS challenges use 1, 0 and 373.13 mm, the diagonal of their volume. NaN leaves a case out of a mean.

    Args:
        scores: names from the table, in the order of the columns.
        regions: classes, above 0, of each region: ``{"complete": [1, 2, 3], "core": [1, 3]}`` gives the columns
            ``Dice complete``, ``Dice core``, and so on. Without it, every class above 0 is one region without a name.
        labels: names to values of the labels, the position of which is the class; ``regions`` then holds names or
            values of labels, and without any each label is a region.
        tolerance: mm, of the surface scores.
        both_empty_overlap, both_empty_distance, one_empty_distance: see above; a distance of either unit.
        without_truth: see above; None for the rules of the other three.

    Raises:
        InputError: no or an unknown score, a region without labels or with a label that is not above 0, a tolerance
            that is negative or not finite.
    """

    def __init__(
        self,
        scores: Sequence[str] = ("Dice", "HD95", "ASSD", "surface Dice"),
        regions: Mapping[str, Sequence[int]] | None = None,
        tolerance: float = 1.0,
        both_empty_overlap: float = 1.0,
        both_empty_distance: float = 0.0,
        one_empty_distance: float = math.inf,
        without_truth: float | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        if labels is not None:
            regions = class_regions(labels, regions)
        known = [*_OVERLAPS, *_DISTANCES, *(name + _VOXELS for name in _DISTANCES), *_SURFACES, _MISSED, *_VOLUMES]
        unknown = [name for name in scores if name not in known]
        if unknown or not scores:
            raise InputError(f"scores {scores!r}: expected a list of names out of {', '.join(known)}")
        for region, classes in (regions or {}).items():
            if not classes or min(classes) <= 0:
                raise InputError(f"region {region!r} of labels {list(classes)}: expected one or more values above 0")
        if not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance {tolerance} mm: expected 0 or more")
        self.scores = tuple(scores)
        self.regions = regions
        self.tolerance = tolerance
        self.both_empty_overlap = both_empty_overlap
        self.both_empty_distance = both_empty_distance
        self.one_empty_distance = one_empty_distance
        self.without_truth = without_truth

    def __call__(self, prediction: Tensor, truth: Tensor) -> dict[str, float]:
        """Scores of one case by column name: for each score, its regions in their order.

        Args:
            prediction: label map ``(1, 1, x, y, z)`` of any dtype.
            truth: label map of the same shape. The spacing in mm is that of the first of the two that is a
                ``MetaTensor``, with its affine; 1 if none is.

        Raises:
            InputError: other shapes, or a value that is no integer.
        """
        if prediction.shape != truth.shape or prediction.ndim != 5 or prediction.shape[:2] != (1, 1):
            raise InputError(
                f"prediction of shape {list(prediction.shape)} and truth of shape {list(truth.shape)}: "
                "expected (1, 1, x, y, z) twice"
            )
        spacing = _spacing(prediction if isinstance(prediction, MetaTensor) else truth)
        maps = _crop_foreground(_volume(prediction), _volume(truth))
        for name, volume in zip(("prediction", "truth"), maps):
            if volume.dtype.kind == "f" and (broken := volume != np.trunc(volume)).any():
                raise InputError(f"{name} holds the value {volume[broken][0]:g}: expected integer labels")

        regions: Mapping[str, Sequence[int] | None] = self.regions or {"": None}
        values = {}
        for region, labels in regions.items():
            masks = _Masks(_select(maps[0], labels), _select(maps[1], labels), prediction.numel())
            values[region] = {name: self._score(name, masks, spacing) for name in self.scores}
        return {f"{name} {region}".strip(): values[region][name] for name in self.scores for region in regions}

    def _score(self, name: str, masks: _Masks, spacing: tuple[float, ...]) -> float:
        tp, fp, fn, _ = masks.counts
        if name in _VOLUMES:
            return _VOLUMES[name](masks.counts) * math.prod(spacing) / 1000
        if self.without_truth is not None and tp + fn == 0:
            return self.without_truth
        if name == _MISSED:
            return float(tp + fp == 0 and fn > 0)
        both_empty, one_empty = tp + fp + fn == 0, (tp + fp == 0) != (tp + fn == 0)
        if name in _OVERLAPS:
            value = _OVERLAPS[name](masks.counts)
            if math.isnan(value):
                value = self.both_empty_overlap if both_empty else float(fp + fn == 0)
            return value
        if name in _SURFACES:
            if both_empty or one_empty:
                return self.both_empty_overlap if both_empty else 0.0
            return _SURFACES[name](masks.distances(spacing), self.tolerance)
        if both_empty or one_empty:
            return self.both_empty_distance if both_empty else self.one_empty_distance
        return _DISTANCES[name.removesuffix(_VOXELS)](masks.distances((1.0,) * 3 if _VOXELS in name else spacing))


class _Counts(NamedTuple):
    """Voxels of the whole volume."""

    tp: int
    fp: int
    fn: int
    tn: int


class _Distances(NamedTuple):
    """From the points of each surface to the nearest point of the other.

    ``shared`` points are on both surfaces; their distance of 0 stands in neither array.
    """

    to_truth: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    shared: int


class _Masks:
    """Prediction and truth of one region: bits 1 and 2 of one array with a margin of background."""

    def __init__(self, prediction: NDArray[np.bool_], truth: NDArray[np.bool_], n_voxels: int) -> None:
        self._code = np.zeros([n + 2 for n in prediction.shape], np.uint8)
        inside = self._code[1:-1, 1:-1, 1:-1]
        np.left_shift(truth, 1, out=inside, dtype=np.uint8)
        inside |= prediction
        fp, fn, tp = (int(np.count_nonzero(self._code == bits)) for bits in (1, 2, 3))
        self.counts = _Counts(tp, fp, fn, n_voxels - tp - fp - fn)
        self._surface: tuple[NDArray, NDArray] | None = None
        self._distances: dict[tuple[float, ...], _Distances] = {}

    def distances(self, spacing: tuple[float, ...]) -> _Distances:
        """Of two masks of which none is empty."""
        if spacing not in self._distances:
            if self._surface is None:
                self._surface = _surface_points(self._code)
            points, bits = self._surface[0] * np.array(spacing), self._surface[1]
            on_prediction, on_truth = (_tree(points[bits & b != 0]) for b in (1, 2))
            self._distances[spacing] = _Distances(
                on_truth.query(points[bits == 1])[0],
                on_prediction.query(points[bits == 2])[0],
                int(np.count_nonzero(bits == 3)),
            )
        return self._distances[spacing]


def _surface_points(code: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Points ``(n, 3)`` of the surfaces, and the bits of the masks whose surface each is on.

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
    return np.stack(np.unravel_index(found + margin, code.shape), axis=1), bits[found]


def _tree(points: NDArray[np.float64]) -> cKDTree:
    """A tree that is quick to build: points on a grid need no balance, and one query does not repay tighter nodes."""
    return cKDTree(points, leafsize=48, compact_nodes=False, balanced_tree=False)


def _hausdorff_95(distances: _Distances) -> float:
    return max(_percentile_95(d, distances.shared) for d in (distances.to_truth, distances.to_prediction))


def _percentile_95(distances: NDArray[np.float64], n_zeros: int) -> float:
    """Linear interpolation, at a rank in single precision as ``torch.quantile`` has it.

    Among 20 000 distances that moves the rank by up to 0.001, which counts where two distances far apart meet.
    """
    rank = np.float32(0.95) * np.float32(n_zeros + len(distances) - 1)
    lower, upper = math.floor(rank) - n_zeros, math.ceil(rank) - n_zeros
    if upper < 0:
        return 0.0
    ordered = np.partition(distances, (max(lower, 0), upper))
    below = ordered[lower] if lower >= 0 else 0.0
    return float(below + (rank - np.floor(rank)) * (ordered[upper] - below))


def _mean_symmetric(distances: _Distances) -> float:
    to_truth, to_prediction, shared = distances
    return float(to_truth.sum() + to_prediction.sum()) / (len(to_truth) + len(to_prediction) + 2 * shared)


def _mean_to_truth(distances: _Distances) -> float:
    return float(distances.to_truth.sum()) / (len(distances.to_truth) + distances.shared)


def _surface_dice(distances: _Distances, tolerance: float) -> float:
    (within_p, n_p), (within_t, n_t) = _within(distances, tolerance)
    return (within_p + within_t) / (n_p + n_t)


def _surface_overlap(distances: _Distances, tolerance: float) -> float:
    (within_p, n_p), (within_t, n_t) = _within(distances, tolerance)
    return (within_p / n_p + within_t / n_t) / 2


def _within(distances: _Distances, tolerance: float) -> list[tuple[int, int]]:
    """Of the prediction and of the truth, the points within the tolerance of the other surface, and all points.

    A distance that differs from the tolerance by rounding only is within it: three steps of 0.1 mm are 0.3 mm.
    """
    return [
        (
            int(np.count_nonzero(d.astype(np.float32) <= np.float32(tolerance))) + distances.shared,
            len(d) + distances.shared,
        )
        for d in (distances.to_truth, distances.to_prediction)
    ]


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _precision(n: _Counts) -> float:
    return _quotient(n.tp, n.tp + n.fp)


def _recall(n: _Counts) -> float:
    return _quotient(n.tp, n.tp + n.fn)


def _matthews(n: _Counts) -> float:
    product = (n.tp + n.fp) * (n.tp + n.fn) * (n.tn + n.fp) * (n.tn + n.fn)
    return _quotient(n.tp * n.tn - n.fp * n.fn, math.sqrt(product))


_OVERLAPS: dict[str, Callable[[_Counts], float]] = {
    "Dice": lambda n: _quotient(2 * n.tp, 2 * n.tp + n.fp + n.fn),
    "IoU": lambda n: _quotient(n.tp, n.tp + n.fp + n.fn),
    "precision": _precision,
    "PPV": _precision,
    "recall": _recall,
    "sensitivity": _recall,
    "specificity": lambda n: _quotient(n.tn, n.tn + n.fp),
    "NPV": lambda n: _quotient(n.tn, n.tn + n.fn),
    "accuracy": lambda n: _quotient(n.tp + n.tn, sum(n)),
    "MCC": _matthews,
}

_DISTANCES: dict[str, Callable[[_Distances], float]] = {
    "HD95": _hausdorff_95,
    "ASSD": _mean_symmetric,
    "ASD": _mean_to_truth,
}

_SURFACES: dict[str, Callable[[_Distances, float], float]] = {
    "surface Dice": _surface_dice,
    "surface overlap": _surface_overlap,
}


_MISSED = "missed"

_VOLUMES: dict[str, Callable[[_Counts], float]] = {
    "volume (ml)": lambda n: n.tp + n.fp,
    "true volume (ml)": lambda n: n.tp + n.fn,
}


def _spacing(image: Tensor) -> tuple[float, ...]:
    if not isinstance(image, MetaTensor):
        return (1.0, 1.0, 1.0)
    return tuple(np.asarray(image.pixdim, np.float64).ravel().tolist())


def _volume(labels: Tensor) -> NDArray:
    if isinstance(labels, MetaTensor):
        labels = labels.as_tensor()
    labels = labels.detach().cpu()
    if labels.dtype in (torch.float16, torch.bfloat16):  # unknown to numpy, or slow there
        labels = labels.float()
    return labels[0, 0].numpy()


def _crop_foreground(*maps: NDArray) -> tuple[NDArray, ...]:
    """The box that holds every voxel that is not 0 or less in any of the maps."""
    x = _extent([m.max(axis=(1, 2)) for m in maps])
    flat = [m[x].max(axis=0, initial=0) for m in maps]
    y, z = _extent([m.max(axis=1) for m in flat]), _extent([m.max(axis=0) for m in flat])
    return tuple(np.ascontiguousarray(m[x, y, z]) for m in maps)


def _extent(profiles: list[NDArray]) -> slice:
    occupied = np.flatnonzero(np.any([~(profile <= 0) for profile in profiles], axis=0))  # NaN is found as well
    return slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0)


def _select(labels: NDArray, values: Sequence[int] | None) -> NDArray[np.bool_]:
    if values is None:
        return labels > 0
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask
