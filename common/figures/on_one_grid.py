"""Read the volumes of a picture or page onto one grid, and measure what it shows of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..data.volumes import read_volume
from ..errors import InputError
from ..geometry import grid_difference, turn_onto

SCALE_BARS = (100, 50, 20, 10, 5, 2, 1)  # lengths in mm
MOST_LABELS = 255  # different values of a label map, with the background; a scan has more


def read_mask(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a label map; return it and its affine in the orientation closest to RAS+.

    Raises:
        InputError: the file cannot be read, or is not a label map.
    """
    mask, affine = read_volume(path, labels=True)
    _check_label_map(path, mask)
    return turn_onto(mask, affine, np.eye(4))


def _check_label_map(path: Path, mask: np.ndarray) -> None:
    """Check that a volume has one channel of whole numbers from 0, as few as labels are."""
    what, low, high = "", float(mask.min()), float(mask.max())
    if mask.ndim != 3:
        what = f"{mask.shape[3]} channels"
    elif low < 0 or (mask != np.rint(mask)).any():
        what = f"values from {low:g} to {high:g}"
    elif high >= MOST_LABELS and (count := len(np.unique(mask))) > MOST_LABELS:
        what = f"{count} different values"
    if what:
        raise InputError(
            f"{path}: {what}, expected a label map, which has one channel of whole numbers from 0; give a mask such as "
            "CASE_seg.nii.gz"
        )


def read_on_grid(
    path: Path,
    mask_file: str | Path,
    mask: np.ndarray,
    affine: np.ndarray,
    labels: bool = False,
    channels: bool = False,
) -> np.ndarray:
    """Read a volume that must be on the grid of a mask; return it in the orientation of the mask.

    Args:
        path: file of the volume.
        mask_file: file of the mask, for the message.
        mask, affine: the mask, as :func:`read_mask` returns it.
        labels: whether the volume is a label map.
        channels: whether the volume may have a fourth axis.

    Raises:
        InputError: the volume cannot be read, has another grid, or should be a label map and is not.
    """
    volume, of_volume = turn_onto(*read_volume(path, labels=labels), affine)
    shape = volume.shape[:3] if channels or labels else volume.shape
    difference = grid_difference(shape, of_volume, mask.shape, affine)
    if difference:
        raise InputError(f"{path}: its grid differs from that of {mask_file}: {difference}; give files on one grid")
    if labels:
        _check_label_map(path, volume)
    return volume


def label_dice(mask: np.ndarray, truth: np.ndarray, values: Iterable[float]) -> list[float]:
    """Return ``2 |A and B| / (|A| + |B|)`` of each label value; 0 where both are empty."""
    return [
        2 * float(((mask == v) & (truth == v)).sum()) / max(float((mask == v).sum() + (truth == v).sum()), 1.0)
        for v in values
    ]


def scale_bar(width: float) -> int:
    """Return the length in mm of a scale bar, at most a third of a width in mm."""
    return next((mm for mm in SCALE_BARS if mm <= width / 3), SCALE_BARS[-1])
