"""Make a scan of an ellipsoidal brain in two modalities."""

from __future__ import annotations

import numpy as np
from monai.data import MetaTensor

SHAPE = (40, 36, 30)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1, 0, 50], [0, 0, 2, -7], [0, 0, 0, 1]])
SLICES = (slice(9, 27), slice(7, 31), slice(5, 23))


def ball() -> np.ndarray:
    """Return the mask of an ellipsoid that fills the box ``SLICES``."""
    grid = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    terms = [((g - (s.start + s.stop - 1) / 2) / ((s.stop - s.start) / 2)) ** 2 for g, s in zip(grid, SLICES)]
    return np.sum(terms, axis=0) < 1


BRAIN = ball()


def scan(background: float = 0.0, noise: float = 0.0, low: float = 200, high: float = 900) -> np.ndarray:
    """Return two modalities: uniform values in the brain, one background value, and normal noise everywhere."""
    rng = np.random.default_rng(0)
    image = np.where(BRAIN, rng.uniform(low, high, (2, *SHAPE)), background)
    return (image + noise * rng.standard_normal(image.shape)).astype(np.float32)


def tensor(array: np.ndarray, name: str = "P_flair.nii.gz") -> MetaTensor:
    return MetaTensor(array.astype(np.float32), affine=AFFINE, meta={"filename_or_obj": name})
