"""Make pairs of masks, and score them with MONAI's functions."""

from __future__ import annotations

import math
import warnings

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


REGIONS = {"complete": [1, 2, 4], "core": [4, 1], "enhancing": [4]}
