"""Compute statistics of the foreground's intensities over the training cases, in Hounsfield units for CT."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..files import read_json, sha256, whole_file
from ..labels import check_labels, read_label_map
from .folds import VALIDATION_SHARE
from .itk_data import scan_files
from .listed_cases import load_cases
from .volume_reader import VolumeReader

logger = logging.getLogger(__name__)
NUMBERS = ("low", "high", "mean", "sd")
SHARES = (0.005, 0.995)  # quantiles of the foreground's voxels for low and high
SOFT_TISSUE = {"low": -60.0, "high": 180.0, "mean": 80.0, "sd": 50.0}  # HU
LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1  # HU; scanners store 16 bits


def intensity_file(dataset_dir: str | Path, fold: int | None = None) -> Path:
    """Return the path of the file that :func:`intensity_of` writes."""
    return Path(dataset_dir) / ("intensity.json" if fold is None else f"intensity_fold{fold}.json")


def intensity_of(
    dataset_dir: str | Path,
    fold: int | None = None,
    modalities: Sequence[str] = ("CT",),
    labels: Mapping[str, int] | None = None,
    label_map: Any = (),
    validation_share: float = VALIDATION_SHARE,
    pretrained: str | Path | None = None,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the statistics of the foreground's voxels (label > 0) over the training cases.

    Each case is read on the grid of its scan. If :func:`intensity_file` exists, the statistics are read from it;
    otherwise they are computed and written to it. In a distributed run, the first process computes and the others read.
    If the folder is read-only, each run computes them again.

    Args:
        dataset_dir, fold, validation_share: see :func:`load_cases`.
        modalities: name of the one channel of the scans.
        labels, label_map: see :class:`common.transforms.CheckLabeld`; values that become background do not count.
        pretrained: weights that the training goes on from, or None.
        known: statistics of these weights, which are then returned as they are; None computes.

    Returns:
        ``low`` and ``high``: 0.5 and 99.5 percentiles of the rounded voxels, HU; ``mean`` and ``sd`` of the voxels
        before clipping, HU, as in nnU-Net; ``cases``: number of cases; ``digest``: SHA-256 of their names and labels.

    Raises:
        InputError: the file belongs to other cases, a case cannot be read, or the foreground is empty or constant.
    """
    if pretrained is not None and known is not None:
        return dict(known)
    mapped = {} if labels is None else read_label_map(label_map, check_labels(labels))
    background = sorted(value for value, result in mapped.items() if result == 0)
    with idist.one_rank_first():
        cases = load_cases(dataset_dir, "training", modalities, fold, validation_share)
        named = sorted(f"{case['case']} {_digest_of_label(Path(case['label']))}" for case in cases)
        parts = [*named, *(f"without {value}" for value in background)]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        path = intensity_file(dataset_dir, fold)
        if not path.exists():
            counts = np.zeros(HIGHEST - LOWEST + 1, dtype=np.int64)
            for case in tqdm(cases, desc="intensities of the training cases", dynamic_ncols=True, disable=None):
                counts += _foreground_counts(case, modalities, background)
            found = {**_statistics(counts, path.parent), "cases": len(cases), "digest": digest}
            try:
                with whole_file(path) as partial:
                    partial.write_text(json.dumps(found, indent=1) + "\n")
            except InputError as error:
                logger.warning("%s; the next run computes the statistics again", error)
                return found
        intensity = read_intensity(path)
        if intensity.get("digest") != digest:
            raise InputError(
                f"{path}: computed from {intensity.get('cases')} other training cases than the {len(cases)} of the "
                "data list beside it, from other labels or with another label_map; remove this file, and training "
                "computes it again"
            )
    return intensity


def read_intensity(path: str | Path, weights: str | Path | Sequence[str | Path] = "") -> dict[str, Any]:
    """Read the statistics that :func:`intensity_of` or :func:`keep_intensity` wrote.

    Args:
        path: file to read, beside the weights.
        weights: file of the weights. For ``"untrained"`` weights without the file, ``SOFT_TISSUE`` is returned.

    Raises:
        InputError: the file is missing or not valid JSON, or has no valid numbers.
    """
    path = Path(path)
    if not path.exists() and weights == "untrained":
        logger.warning("untrained weights: no %s, so intensities are %s (HU)", path, _shown(SOFT_TISSUE))
        return dict(SOFT_TISSUE)
    if not path.exists():
        raise InputError(f"{path}: no such file; training writes it beside its weights, so copy it together with them")
    intensity = read_json(path)
    numbers = [intensity.get(key) for key in NUMBERS] if isinstance(intensity, dict) else [None]
    if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise InputError(f"{path}: expected an object with the numbers {', '.join(NUMBERS)}")
    if not (intensity["low"] < intensity["high"] and intensity["sd"] > 0):
        raise InputError(f"{path}: expected low below high and sd above 0, found {_shown(intensity)}")
    return intensity


def keep_intensity(steps: Iterable[Any], ckpt_dir: str | Path) -> None:
    """Write ``ckpt_dir/intensity.json`` beside the weights, so that inference needs no data list.

    In a distributed run, only the first process writes.

    Args:
        steps: transforms of the training; the first one with an attribute ``intensity`` has the statistics. Without
            such a transform, as for MRI, nothing is written.
        ckpt_dir: folder of the weights.

    Raises:
        InputError: the file exists with other numbers.
    """
    intensity = next((step.intensity for step in steps if hasattr(step, "intensity")), None)
    if intensity is None or idist.get_rank() > 0:
        return
    path = Path(ckpt_dir) / "intensity.json"
    if path.exists():
        kept = read_intensity(path)
        if any(kept[key] != intensity[key] for key in NUMBERS):
            raise InputError(
                f"{path}: {_shown(kept)}, but the training cases have {_shown(intensity)}; the folder has weights of "
                "other cases, so choose another --ckpt_dir"
            )
        return
    with whole_file(path) as partial:
        partial.write_text(json.dumps(dict(intensity), indent=1) + "\n")


def _digest_of_label(path: Path) -> str:
    """Return the SHA-256 of a label's file, or of the files of its folder."""
    files = sorted(path.iterdir()) if path.is_dir() else scan_files(path)
    return " ".join(sha256(file) for file in files if file.is_file())


def _foreground_counts(case: Mapping[str, Any], modalities: Sequence[str], background: Sequence[int]) -> np.ndarray:
    """Count the foreground voxels of each value from ``LOWEST`` to ``HIGHEST``."""
    image, label = (
        reader.get_data(reader.read(case[key]))[0]
        for key, reader in (("image", VolumeReader(modalities)), ("label", VolumeReader(["label"], True)))
    )
    if image.shape != label.shape:
        raise InputError(
            f"{case['label']}: shape {list(label.shape)}, but its image has {list(image.shape)}; resample the label"
        )
    values = np.rint(image[(label > 0.5) & ~np.isin(np.rint(label), background)])
    values = values[(values >= LOWEST) & (values <= HIGHEST)].astype(np.int64)  # others are damaged
    return np.bincount(values - LOWEST, minlength=HIGHEST - LOWEST + 1)


def _statistics(counts: np.ndarray, where: Path) -> dict[str, float]:
    total = int(counts.sum())
    if total == 0:
        raise InputError(f"{where}: no training case has a foreground voxel (label > 0); check the labels")
    below = counts.cumsum()
    values = np.arange(LOWEST, HIGHEST + 1, dtype=np.float64)
    low, high = (_percentile(below, values, share * (total - 1)) for share in SHARES)
    if low == high:
        raise InputError(
            f"{where}: the foreground of the training cases has no contrast: nearly all voxels are {low:g}"
        )
    mean = float((counts * values).sum() / total)
    sd = math.sqrt(float((counts * (values - mean) ** 2).sum() / total))
    return {"low": low, "high": high, "mean": mean, "sd": sd}


def _percentile(below: np.ndarray, values: np.ndarray, position: float) -> float:
    """Return the value at a position in sorted order, counted from 0, interpolated linearly as NumPy does."""
    first = math.floor(position)
    lower, upper = (
        float(values[np.searchsorted(below, place, side="right")]) for place in (first, math.ceil(position))
    )
    return lower + (position - first) * (upper - lower)


def _shown(intensity: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {intensity[key]:g}" for key in NUMBERS)
