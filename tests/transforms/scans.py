"""Make scans and images of the network on grids of several orientations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Orientationd,
    Spacingd,
)
from scipy import ndimage

from common.transforms import ResampleAxesd

RAS = np.array([[1.1, 0, 0, 5], [0, 0.9, 0, -7], [0, 0, 2.5, 30], [0, 0, 0, 1]])
LPS = np.array([[-1.1, 0, 0, 50], [0, -0.9, 0, 40], [0, 0, 2.5, -3], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, -2.5, 11], [1.1, 0, 0, 0], [0, -0.9, 0, 9], [0, 0, 0, 1]])
TURNED = np.array([[0.96, -0.28, 0, 0], [0.28, 0.96, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ LPS  # oblique, not sheared
SHEARED = RAS @ np.array([[1, 0, 0.6, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # a tilted gantry
AFFINES = {"RAS": RAS, "LPS": LPS, "permuted": PERMUTED, "turned": TURNED}
SHAPE = (17, 22, 13)
FINER, COARSER, MIXED = (0.73, 0.61, 1.37), (2.3, 1.9, 5.3), (0.71, 1.9, -1)


each_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)


def field(channels: int, shape: tuple[int, ...], smooth: float = 2.0, seed: int = 0) -> torch.Tensor:
    """Return smooth random channels of mean 0 and standard deviation 1."""
    noise = np.random.default_rng(seed).normal(size=(channels, *shape))
    volume = ndimage.gaussian_filter(noise, (0, smooth, smooth, smooth))
    return torch.from_numpy(volume / volume.std()).float()


def scan(affine: np.ndarray, shape: tuple[int, ...] = SHAPE, channels: int = 2) -> MetaTensor:
    """Return a scan as common.data.VolumeReader reads it."""
    meta = {"original_affine": affine.copy(), "spatial_shape": np.array(shape), "filename_or_obj": "P1.nii.gz"}
    return MetaTensor(field(channels, shape), affine=affine, meta=meta)


def network_image(shape: tuple[int, ...], affine: np.ndarray, scan_affine: np.ndarray = RAS) -> MetaTensor:
    """Return an image on the network's grid."""
    meta = {"original_affine": scan_affine, "spatial_shape": np.array(SHAPE)}
    return MetaTensor(torch.zeros(1, *shape), affine=affine, meta=meta)


def ours(pixdim: tuple[float, ...] | None) -> list[Any]:
    return [ResampleAxesd("image", "RAS", pixdim)]


def monais(pixdim: tuple[float, ...] | None) -> list[Any]:
    steps: list[Any] = [Orientationd("image", axcodes="RAS", labels=None)]
    return steps if pixdim is None else [*steps, Spacingd("image", pixdim)]
