"""Every score of a segmented case from one pass over its two label maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..labels import class_regions
from .surfaces import (
    Areas,
    Counts,
    Distances,
    Masks,
    hausdorff_95,
    mean_symmetric,
    mean_to_truth,
    surface_dice,
    surface_overlap,
    triangular_axes,
)

_VOXELS = " (voxels)"


class SegmentationScores:
    """Compute overlap and surface distances of a predicted label map and the truth, one value per score and region.

    The values equal those of MONAI 1.6.1, which passes over the volume once per metric and has no surface overlap.

    Distances are between voxel centres. The surface of a mask is its voxels that have one of their 6 neighbours outside
    the mask or outside the volume; P and T are the surfaces of prediction and truth. A distance from P to T is that of
    one voxel of P to the nearest voxel of T, along a straight line in mm. It follows the affine, so it counts the angle
    between the axes of a sheared scan.

    The two surface scores are shares of area, as MONAI's ``use_subvoxels=True`` and DeepMind's surface-distance have
    them. A surface passes each corner between 8 voxels of which some are inside the mask and some outside; the corner
    counts by the area in mm² of the marching cubes' triangles there. It is within ``tolerance`` if the nearest corner
    of the other surface is no farther away, in mm.

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
    surface Dice     share of the area of both surfaces, pooled, within ``tolerance`` of the other         0 to 1
    surface overlap  mean of two such shares, that of the prediction's surface and that of the truth's     0 to 1
    missed           1 if the prediction is empty and the truth is not, else 0; its mean is a share        0 or 1
    ===============  ====================================================================================  ========

    A percentile interpolates linearly between two distances. HD95, ASSD and ASD exist in voxels as well, as
    ``HD95 (voxels)``: a step to a neighbour along any axis has length 1, and the axes are at right angles.
    ``volume (ml)`` and ``true volume (ml)`` are the sizes of the two masks.

    Other tools define surfaces and percentiles in other ways: compare distances of one tool only. Surface overlap is
    MultiR-Net's ASO (eq. 12) with the areas of the surfaces (eq. 11) below the fraction lines; as printed, with unions
    there, it could not exceed 0.5, and the paper reports more.

    A quotient that is 0 / 0, or a distance without another end, has these values:

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
        """Return the scores of one case by column name: for each score, its regions in their order.

        Args:
            prediction: label map ``(1, 1, x, y, z)`` of any dtype.
            truth: label map of the same shape. The first of the two that is a ``MetaTensor`` gives the affine, in mm;
                without one, voxels are cubes of 1 mm.

        Raises:
            InputError: other shapes, a value that is not an integer, or an affine of axes that span no volume.
        """
        if prediction.shape != truth.shape or prediction.ndim != 5 or prediction.shape[:2] != (1, 1):
            raise InputError(
                f"prediction of shape {list(prediction.shape)} and truth of shape {list(truth.shape)}: "
                "expected (1, 1, x, y, z) twice"
            )
        axes = _axes(prediction if isinstance(prediction, MetaTensor) else truth)
        maps = _crop_foreground(_volume(prediction), _volume(truth))
        for name, volume in zip(("prediction", "truth"), maps):
            if volume.dtype.kind == "f" and (broken := volume != np.trunc(volume)).any():
                raise InputError(f"{name} holds the value {volume[broken][0]:g}: expected integer labels")

        regions: Mapping[str, Sequence[int] | None] = self.regions or {"": None}
        values = {}
        for region, labels in regions.items():
            masks = Masks(_select(maps[0], labels), _select(maps[1], labels), prediction.numel(), axes)
            values[region] = {name: self._score(name, masks, float(np.linalg.det(axes))) for name in self.scores}
        return {f"{name} {region}".strip(): values[region][name] for name in self.scores for region in regions}

    def _score(self, name: str, masks: Masks, voxel_size: float) -> float:
        tp, fp, fn, _ = masks.counts
        if name in _VOLUMES:
            return _VOLUMES[name](masks.counts) * voxel_size / 1000
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
            return _SURFACES[name](masks.areas(self.tolerance))
        if both_empty or one_empty:
            return self.both_empty_distance if both_empty else self.one_empty_distance
        return _DISTANCES[name.removesuffix(_VOXELS)](masks.distances(in_mm=_VOXELS not in name))


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _precision(n: Counts) -> float:
    return _quotient(n.tp, n.tp + n.fp)


def _recall(n: Counts) -> float:
    return _quotient(n.tp, n.tp + n.fn)


def _matthews(n: Counts) -> float:
    product = (n.tp + n.fp) * (n.tp + n.fn) * (n.tn + n.fp) * (n.tn + n.fn)
    return _quotient(n.tp * n.tn - n.fp * n.fn, math.sqrt(product))


_OVERLAPS: dict[str, Callable[[Counts], float]] = {
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

_DISTANCES: dict[str, Callable[[Distances], float]] = {
    "HD95": hausdorff_95,
    "ASSD": mean_symmetric,
    "ASD": mean_to_truth,
}

_SURFACES: dict[str, Callable[[Areas], float]] = {
    "surface Dice": surface_dice,
    "surface overlap": surface_overlap,
}

_MISSED = "missed"

_VOLUMES: dict[str, Callable[[Counts], float]] = {
    "volume (ml)": lambda n: n.tp + n.fp,
    "true volume (ml)": lambda n: n.tp + n.fn,
}


def _axes(image: Tensor) -> NDArray[np.float64]:
    """Return the steps in mm along the axes of the image's grid, as :func:`triangular_axes` has them."""
    if not isinstance(image, MetaTensor):
        return np.eye(3)
    affine = torch.as_tensor(image.affine, dtype=torch.float64, device="cpu").numpy().reshape(-1, 4, 4)[0]
    steps = affine[:3, :3]
    if not (np.isfinite(steps).all() and abs(np.linalg.det(steps)) > 1e-6 * np.linalg.norm(steps, axis=0).prod()):
        raise InputError(f"affine {affine.tolist()}: expected finite values and axes that span a volume")
    return triangular_axes(steps)


def _volume(labels: Tensor) -> NDArray:
    if isinstance(labels, MetaTensor):
        labels = labels.as_tensor()
    labels = labels.detach().cpu()
    if labels.dtype in (torch.float16, torch.bfloat16):  # unknown to numpy, or slow there
        labels = labels.float()
    return labels[0, 0].numpy()


def _crop_foreground(*maps: NDArray) -> tuple[NDArray, ...]:
    """Return the box that holds every voxel that is not 0 or less in any of the maps."""
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
