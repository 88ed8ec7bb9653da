"""Summarise orientations and voxel sizes of scans, and compare another scan with them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..tensors import source_of

AXES = ("left-right", "front-back", "foot-head")
FACTOR = 1.5  # a voxel size is far outside if it leaves the range of the training cases by this factor

logger = logging.getLogger(__name__)


def grid_summary(affines: Iterable[np.ndarray]) -> dict[str, Any]:
    """Summarise the grids of scans for the record of a training, ready for JSON.

    Args:
        affines: 4x4 affine to RAS+ millimetres of each scan, from its file.

    Returns:
        ``orientations``: number of scans for each orientation, such as ``{"LPS": 3}``; ``spacing``: ``min``, ``median``
        and ``max`` in mm along left-right, front-back and foot-head. Empty without scans.
    """
    stored = [np.asarray(affine, dtype=np.float64) for affine in affines]
    if not stored:
        return {}
    orientations = Counter("".join(nib.orientations.aff2axcodes(affine)) for affine in stored)
    spacings = np.array([body_spacing(affine) for affine in stored])
    numbers = {"min": spacings.min(0), "median": np.median(spacings, 0), "max": spacings.max(0)}
    return {
        "orientations": dict(sorted(orientations.items())),
        "spacing": {key: [round(float(v), 4) for v in value] for key, value in numbers.items()},
    }


def body_spacing(affine: np.ndarray) -> np.ndarray:
    """Return the voxel size of a 4x4 affine to RAS+, in mm along left-right, front-back and foot-head."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing[np.argsort(nib.orientations.io_orientation(affine)[:, 0])]


class CheckSpacingd(MapTransform):
    """Warn about a scan with a voxel size far outside the range of the training cases.

    A voxel size is far outside if it is below 2/3 of the smallest or above 3/2 of the largest along an axis of the
    body. The texture of slices of 1 mm differs from that of slices of 5 mm that a network has learnt.

    Args:
        keys: images ``(C, x, y, z)`` with the scan's ``original_affine`` in their metadata.
        trained: result of :func:`grid_summary` for the training cases; None or empty if unknown.
    """

    def __init__(
        self, keys: KeysCollection, trained: Mapping[str, Any] | None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing: Mapping[str, Sequence[float]] | None = (trained or {}).get("spacing")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            if self.spacing is not None and "original_affine" in getattr(d[key], "meta", {}):
                found = body_spacing(np.asarray(d[key].meta["original_affine"], dtype=np.float64))
                shown = [
                    f"{size:.3g} mm along {axis} (training {_range(low, high)} mm)"
                    for axis, size, low, high in zip(AXES, found, self.spacing["min"], self.spacing["max"])
                    if not low / FACTOR <= size <= high * FACTOR
                ]
                if shown:
                    logger.warning(
                        "%s: voxels of %s; the result may be poor", source_of(d[key], key), " and ".join(shown)
                    )
        return d


def _range(low: float, high: float) -> str:
    texts = [f"{value:.3g}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)
