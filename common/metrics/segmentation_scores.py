"""Compute all scores of a segmented case in one pass over its two label maps."""

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
from .quotient import quotient
from .surfaces import (
    Areas,
    Counts,
    Distances,
    Masks,
    hausdorff_95,
    mean_directed,
    mean_symmetric,
    surface_dice,
    surface_overlap,
    triangular_axes,
)

_VOXELS = " (voxels)"


class SegmentationScores:
    """Compute overlap and surface distances of a predicted label map and the ground truth, per score and region.

    The values equal those of MONAI 1.6.1, which passes over the volume once per metric and has no surface overlap.

    Distances are between voxel centres. A voxel of a mask is on its surface if one of its 6 neighbours is outside the
    mask or outside the volume. P and T are the surfaces of prediction and ground truth. A distance from P to T is the
    one from a voxel of P to the nearest voxel of T, along a straight line in mm. It follows the affine, so it includes
    the angle between the axes of a sheared scan.

    The two surface scores are fractions of area, as in MONAI with ``use_subvoxels=True`` and in DeepMind's
    surface-distance. A surface passes a corner between 8 voxels if some of them are inside the mask and some outside.
    The weight of a corner is the area in mm² of the marching cubes' triangles there. A corner is within ``tolerance``
    if the nearest corner of the other surface is at most that far away, in mm.

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
    surface Dice     fraction of the area of both surfaces, pooled, within ``tolerance`` of the other      0 to 1
    surface overlap  mean of this fraction of the prediction's surface and of the ground truth's           0 to 1
    missed           1 if the prediction is empty and the ground truth is not, else 0                      0 or 1
    ===============  ====================================================================================  ========

    A percentile interpolates linearly between two distances. HD95, ASSD and ASD also exist in voxels, as
    ``HD95 (voxels)``: neighbours along any axis are 1 voxel apart, and the axes are perpendicular. ``volume (ml)`` and
    ``true volume (ml)`` are the volumes of the two masks. The mean of ``missed`` is the fraction of missed cases.

    Other tools define surfaces and percentiles in other ways: compare distances of one tool only. Surface overlap is
    MultiR-Net's ASO (eq. 12) with the areas of the surfaces (eq. 11) as denominators. The paper prints unions there.
    With them, ASO could not exceed 0.5, but the paper reports more.

    A quotient 0 / 0, or a distance to an empty mask, has these values:

    - If both masks are empty: ``both_empty_overlap`` for Dice, IoU, precision, recall, MCC and the surface scores;
      ``both_empty_distance`` for distances; 1 for specificity, NPV and accuracy.
    - If exactly one mask is empty: 0 for Dice, IoU, precision, recall, MCC and the surface scores;
      ``one_empty_distance`` for distances.
    - If the ground truth is empty and ``without_truth`` is set: this value for all scores, whatever the prediction.
      Volumes stay; the volume of the prediction then is a false alarm.
    - If a mask fills the volume, so that specificity, NPV or MCC is 0 / 0: 1 for equal masks, else 0.

    The BraTS challenges use 1, 0 and 373.13 mm, the diagonal of their volume. NaN leaves a case out of a mean.

    Args:
        scores: names from the table, in the order of the columns.
        regions: mapping from region names to lists of classes above 0. ``{"complete": [1, 2, 3], "core": [1, 3]}``
            gives the columns ``Dice complete``, ``Dice core``, and so on. Without it, all classes above 0 are one
            region without a name.
        tolerance: distance in mm for the surface scores.
        both_empty_overlap, both_empty_distance, one_empty_distance: see above; a distance in mm and in voxels alike.
        without_truth: see above; None applies the other three rules.
        labels: mapping from label names to values; the position of a label is its class. ``regions`` then holds names
            or values of labels, and without ``regions`` each label is a region.

    Raises:
        InputError: ``scores`` is empty or has an unknown name; a region is empty or has a class that is not above 0; or
            the tolerance is negative or not finite.
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
                raise InputError(
                    f"region {region!r} has the classes {list(classes)}; expected one or more classes above 0"
                )
        if not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance {tolerance} mm; expected a finite number, 0 or more")
        self.scores = tuple(scores)
        self.regions = regions
        self.tolerance = tolerance
        self.both_empty_overlap = both_empty_overlap
        self.both_empty_distance = both_empty_distance
        self.one_empty_distance = one_empty_distance
        self.without_truth = without_truth

    def __call__(self, prediction: Tensor, truth: Tensor) -> dict[str, float]:
        """Return the scores of one case by column name: score by score, and for each score region by region.

        Args:
            prediction: label map ``(1, 1, x, y, z)`` of any dtype.
            truth: label map of the same shape. The affine in mm is that of the prediction if it is a ``MetaTensor``, or
                else that of the ground truth. Without a ``MetaTensor``, voxels are cubes of 1 mm.

        Raises:
            InputError: a shape is wrong, a value is not an integer, or the affine's axes do not span a volume.
        """
        if prediction.shape != truth.shape or prediction.ndim != 5 or prediction.shape[:2] != (1, 1):
            raise InputError(
                f"prediction of shape {list(prediction.shape)} and truth of shape {list(truth.shape)}: "
                "expected (1, 1, x, y, z) for both"
            )
        axes = _axes(prediction if isinstance(prediction, MetaTensor) else truth)
        maps = _crop_foreground(_volume(prediction), _volume(truth))
        for name, volume in zip(("prediction", "truth"), maps):
            if volume.dtype.kind == "f" and (broken := volume != np.trunc(volume)).any():
                raise InputError(
                    f"{name}: value {volume[broken][0]:g}, expected integer labels; give label maps, not probabilities"
                )

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


def _precision(n: Counts) -> float:
    return quotient(n.tp, n.tp + n.fp)


def _recall(n: Counts) -> float:
    return quotient(n.tp, n.tp + n.fn)


def _matthews(n: Counts) -> float:
    product = (n.tp + n.fp) * (n.tp + n.fn) * (n.tn + n.fp) * (n.tn + n.fn)
    return quotient(n.tp * n.tn - n.fp * n.fn, math.sqrt(product))


_OVERLAPS: dict[str, Callable[[Counts], float]] = {
    "Dice": lambda n: quotient(2 * n.tp, 2 * n.tp + n.fp + n.fn),
    "IoU": lambda n: quotient(n.tp, n.tp + n.fp + n.fn),
    "precision": _precision,
    "PPV": _precision,
    "recall": _recall,
    "sensitivity": _recall,
    "specificity": lambda n: quotient(n.tn, n.tn + n.fp),
    "NPV": lambda n: quotient(n.tn, n.tn + n.fn),
    "accuracy": lambda n: quotient(n.tp + n.tn, sum(n)),
    "MCC": _matthews,
}

_DISTANCES: dict[str, Callable[[Distances], float]] = {
    "HD95": hausdorff_95,
    "ASSD": mean_symmetric,
    "ASD": mean_directed,
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
    """Return the steps in mm along the axes of the image's grid, see :func:`triangular_axes`."""
    if not isinstance(image, MetaTensor):
        return np.eye(3)
    affine = torch.as_tensor(image.affine, dtype=torch.float64, device="cpu").numpy().reshape(-1, 4, 4)[0]
    steps = affine[:3, :3]
    if not (np.isfinite(steps).all() and abs(np.linalg.det(steps)) > 1e-6 * np.linalg.norm(steps, axis=0).prod()):
        raise InputError(
            f"affine {affine.tolist()}: expected finite values and axes that span a volume; correct the header"
        )
    return triangular_axes(steps)


def _volume(labels: Tensor) -> NDArray:
    """Return the volume ``(x, y, z)`` of a label map as an array."""
    if isinstance(labels, MetaTensor):
        labels = labels.as_tensor()
    labels = labels.detach().cpu()
    if labels.dtype in (torch.float16, torch.bfloat16):  # NumPy has no bfloat16, and float16 is slow there
        labels = labels.float()
    return labels[0, 0].numpy()


def _crop_foreground(*maps: NDArray) -> tuple[NDArray, ...]:
    """Return the maps cropped to the smallest box that contains the foreground of all of them."""
    x = _extent([m.max(axis=(1, 2)) for m in maps])
    flat = [m[x].max(axis=0, initial=0) for m in maps]
    y, z = _extent([m.max(axis=1) for m in flat]), _extent([m.max(axis=0) for m in flat])
    return tuple(np.ascontiguousarray(m[x, y, z]) for m in maps)


def _extent(profiles: list[NDArray]) -> slice:
    """Return the slice from the first to the last position where any profile is above 0."""
    occupied = np.flatnonzero(
        np.any([~(profile <= 0) for profile in profiles], axis=0)
    )  # written so that NaN counts as foreground, and is refused later
    return slice(occupied[0], occupied[-1] + 1) if len(occupied) else slice(0)


def _select(labels: NDArray, values: Sequence[int] | None) -> NDArray[np.bool_]:
    """Return the mask of some classes, or of all classes above 0 without ``values``."""
    if values is None:
        return labels > 0
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    return mask
