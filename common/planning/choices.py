"""Choose the settings of a training from the facts of its cases; each choice has its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..memory import size as size_of
from .cases import CaseFacts

THICK = 3.0  # a voxel is anisotropic if its longest edge is so many times its shortest
WITHOUT_AIR = 0.25  # share of zeros above which they are background outside the head or body
PER_HOUR = 3600.0
VALIDATION = 0.1  # share of the time for validation
EPOCHS = 100
MOST_UPDATES = 60_000
FEWEST_UPDATES = 500
LEAST_UPDATES = 250  # a smaller patch costs more than fewer updates, down to so many
BATCHES = (4, 2)
SMALL_PATCH = 64**3  # voxels up to which a batch has four patches
# A patch has at least so many voxels on the coarsest level. Along x, two are too few: PyTorch 2.13 on a CPU then reads
# memory that nobody wrote for the gradient of a 3x3x3 convolution in bfloat16, and some weights become NaN.
COARSEST = (3, 2, 2)


class Choice(NamedTuple):
    """Hold the value of a setting and its reason."""

    value: Any
    reason: str


class Cost(NamedTuple):
    """Hold the cost of an update, in seconds and in bytes of memory."""

    seconds: float
    memory: int


def choose_spacing(facts: Sequence[CaseFacts]) -> Choice:
    """Return the voxel size in mm of the network's grid: the median of the cases.

    Along an axis that is at least three times as coarse as another, it is the 10th percentile, so that few cases lose
    slices.
    """
    spacings = np.array([fact.spacing for fact in facts])
    median = np.median(spacings, 0)
    if np.allclose(spacings, median, rtol=0.01):
        return Choice(_rounded(median), "the same in all training cases")
    coarse = median / median.min() >= THICK
    chosen = np.where(coarse, np.quantile(spacings, 0.1, axis=0), median)
    reason = f"median of {len(facts)} training cases"
    if coarse.any():
        reason += "; along coarse axes the 10th percentile"
    return Choice(_rounded(chosen), reason)


def _rounded(spacing: np.ndarray) -> list[float]:
    return [float(f"{size:.4g}") for size in spacing]


def median_shape(facts: Sequence[CaseFacts], spacing: Sequence[float]) -> np.ndarray:
    """Return the median size ``(x, y, z)`` of the cases in voxels on the network's grid."""
    extents = np.array([np.multiply(fact.shape, fact.spacing) for fact in facts])
    return np.median(np.ceil(extents / np.array(spacing) - 1e-6), 0)


def choose_patch(
    shape: np.ndarray, divisors: Sequence[int], memory: int, seconds: float, cost: Callable[[list[int], int], Cost]
) -> tuple[Choice, Choice, Cost]:
    """Return the patch, the batch size, and the cost of an update.

    The patch begins as the median case, rounded up to what the network divides. It shrinks along its longest axis until
    an update fits the memory and the time.

    Args:
        shape: median size ``(x, y, z)`` of the cases, in voxels.
        divisors: numbers that divide a patch ``(x, y, z)``.
        memory: bytes that an update may take.
        seconds: time that an update may take.
        cost: callable (patch, batch size) -> cost of an update.

    Raises:
        InputError: the smallest patch does not fit the memory.
    """
    steps = np.array(divisors)
    patch = np.maximum(np.ceil(shape / steps), 1).astype(int) * steps
    least = np.array(COARSEST) * steps
    if patch[0] > steps[0]:
        patch[0] = max(patch[0], least[0])
    whole = patch.copy()
    while True:
        batch = BATCHES[0] if patch.prod() <= SMALL_PATCH else BATCHES[1]
        measured = cost(patch.tolist(), batch)
        if measured.memory <= memory and measured.seconds <= seconds:
            break
        longest = int(np.argmax(np.where(patch > least, patch / shape, 0)))
        if patch[longest] <= least[longest]:
            break
        excess = max(measured.memory / memory, measured.seconds / seconds)
        fewer = max(1, int(patch[longest] * (1 - excess ** (-1 / 3)) // steps[longest]))
        patch[longest] = max(least[longest], patch[longest] - fewer * steps[longest])
    if measured.memory > memory:
        raise InputError(
            f"an update with the smallest patch, {' x '.join(map(str, patch))} voxels, needs "
            f"{size_of(measured.memory)}, but {size_of(memory)} may be used; free memory, or use another machine or a "
            "narrower network"
        )
    size = " x ".join(f"{n:g}" for n in shape)
    reason = f"the median case of {size} voxels, in multiples of {', '.join(map(str, divisors))}"
    if (patch < whole).any():
        reason = f"as much of the median case of {size} voxels as fits the memory and the time"
    text = f"patches of {'up to' if batch == BATCHES[0] else 'more than'} {SMALL_PATCH} voxels"
    return Choice(patch.tolist(), reason), Choice(batch, text), measured


def choose_length(hours: float, update: Cost, batch: int, cases: int) -> dict[str, Choice]:
    """Return epochs, updates of an epoch, and the interval of the validation, for a training of so many hours.

    Args:
        hours: time for the training.
        update: cost of an update.
        batch: patches of an update.
        cases: number of validation cases; each is taken to cost as much as a patch of an update.
    """
    updates = int(min(hours * PER_HOUR * (1 - VALIDATION) / update.seconds, MOST_UPDATES))
    per_epoch = max(updates // EPOCHS, 10)
    epochs = max(updates // per_epoch, 1)
    validation = cases * update.seconds / batch
    interval = max(1, math.ceil(validation / (VALIDATION * per_epoch * update.seconds)))
    interval = min(interval, epochs)
    epochs -= epochs % interval  # the last epoch is validated
    reason = f"{updates} updates of {update.seconds:.2g} s fit {hours:g} h here with validation"
    if updates < FEWEST_UPDATES:
        reason += f"; fewer than {FEWEST_UPDATES} seldom suffice, so give more --hours, or use a GPU"
    return {
        "max_epochs": Choice(epochs, reason),
        "updates_per_epoch": Choice(per_epoch, f"about {EPOCHS} epochs, of at least 10 updates"),
        "val_interval": Choice(interval, f"validation takes about {VALIDATION:.0%} of the time"),
    }


def choose_intensity(facts: Sequence[CaseFacts], modalities: Sequence[str]) -> tuple[Choice, Choice]:
    """Return the checks of an image as loaded, and the transform of its intensities.

    CT is clipped to the range of the foreground in the training cases and standardised by it. Everything else has no
    common scale: each channel of each case is standardised by itself.
    """
    named_ct = [name.strip().lower() in ("ct", "hu") for name in modalities]
    if all(named_ct) or (all(fact.is_ct for fact in facts) and not any(named_ct) and len(modalities) == 1):
        voxels = np.concatenate([fact.foreground for fact in facts])[:, 0]
        low, high = (float(value) for value in np.quantile(voxels, (0.005, 0.995)))
        clipped = voxels.clip(low, high)
        intensity = {"low": low, "high": high, "mean": float(clipped.mean()), "sd": float(clipped.std())}
        intensity = {key: round(value, 4) for key, value in intensity.items()}
        step: dict[str, Any] = {
            "_target_": "common.transforms.ClipStandardized",
            "keys": "image",
            "intensity": intensity,
        }
        check = [{"_target_": "common.transforms.CheckHounsfieldd", "keys": "image"}]
        return Choice(check, "CT"), Choice(
            step, "CT: range, mean and deviation of the foreground in the training cases, in HU"
        )
    nonzero = float(np.median([fact.zeros for fact in facts])) > WITHOUT_AIR
    step = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": nonzero, "channel_wise": True}
    check = [] if any(named_ct) else [{"_target_": "common.transforms.CheckMRId", "keys": "image"}]
    why = "CT and other channels together" if any(named_ct) else "neither CT nor a map of labels or probabilities"
    reason = "no common scale: every channel of every case by its own mean and deviation"
    return Choice(check, why), Choice(step, reason + (", zeros outside the body left out" if nonzero else ""))


def choose_augmentation(spacing: Sequence[float]) -> Choice:
    """Return the random transforms of a training patch.

    Flips are left out, since a body has sides: with them, a hippocampus was learned more slowly. Rotation about x and y
    is small if the slices are thick.

    Args:
        spacing: voxel size of the network's grid, in mm.
    """
    tilt = 0.26 if max(spacing) / min(spacing) < THICK else 0.05  # radians
    both = ["image", "label"]
    steps: list[dict[str, Any]] = [
        {"_target_": "CastToTyped", "keys": both, "dtype": "float32"},
        {"_target_": "RandSpatialCropd", "keys": both, "roi_size": "@roi_size", "random_size": False},
        {"_target_": "RandAffined", "keys": both, "prob": 0.7, "rotate_range": [tilt, tilt, 0.26],
         "scale_range": [0.15, 0.15, 0.15], "mode": ["bilinear", "nearest"], "padding_mode": "border"},
        {"_target_": "RandScaleIntensityd", "keys": "image", "factors": 0.2, "prob": 0.5},
        {"_target_": "RandShiftIntensityd", "keys": "image", "offsets": 0.2, "prob": 0.5},
        {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 0.3, "gamma": [0.7, 1.5], "retain_stats": True},
        {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.15, "std": 0.1},
    ]  # fmt: skip
    return Choice(steps, "small rotations, sizes, contrasts and noise; no flips, since a body has sides")
