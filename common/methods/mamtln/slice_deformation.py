"""Rotate, scale and deform volumes of thick slices within the plane of the slices, as the authors' release does."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from monai.utils import ensure_tuple_rep
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ...tensors import as_tensor


class RandDeformSlicesd(Randomizable, MapTransform):
    """Apply the same deformation, rotation and scale to all slices, in one interpolation, and crop the middle.

    The draws are those of the release, which takes them from the package ``batchgenerators``. Each of the three steps
    has the probability ``prob``. The deformation is uniform noise from -1 to 1, smoothed by a Gaussian filter and
    multiplied by ``alpha``. One factor scales both axes; it lies below 1 in half of the draws. A scan is interpolated
    by cubic splines and a label linearly, each value of the label alone. Voxels outside the input become 0. Without a
    drawn step, the middle of the input is cut out and nothing is interpolated.

    Args:
        keys: ``(C, x, y, z)``, all of one size.
        roi_size: size ``(x, y, z)`` of the result in voxels, at most that of the input.
        is_label: whether a key is a label, one for all keys or one for each.
        prob: probability of each of the three steps.
        angle: largest rotation in either direction, radians.
        scale: range of the factor; a factor below 1 enlarges the scan.
        alpha: range of the factor of the smoothed noise, voxels.
        sigma: range of the standard deviation of the Gaussian filter, voxels.

    Raises:
        ValueError: the input is smaller than ``roi_size``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        is_label: bool | Sequence[bool],
        prob: float = 0.2,
        angle: float = math.pi,
        scale: Sequence[float] = (0.85, 1.25),
        alpha: Sequence[float] = (0.0, 200.0),
        sigma: Sequence[float] = (9.0, 13.0),
    ) -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.is_label = ensure_tuple_rep(is_label, len(self.keys))
        self.prob = prob
        self.angle, self.scale, self.alpha, self.sigma = angle, tuple(scale), tuple(alpha), tuple(sigma)

    def randomize(self, size: Sequence[int]) -> np.ndarray | None:
        """Draw where the voxels of a slice come from, relative to the middle; None if no step is drawn.

        Args:
            size: voxels ``(x, y)`` of the result.

        Returns:
            ``(2, x, y)``, voxels.
        """
        deform, rotate, scale = self.R.random_sample(3) < self.prob
        if not (deform or rotate or scale):
            return None
        places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij"))
        if deform:
            alpha, sigma = self.R.uniform(*self.alpha), self.R.uniform(*self.sigma)
            noise = self.R.uniform(-1, 1, size=places.shape)
            places += alpha * np.stack([gaussian_filter(plane, sigma, mode="constant") for plane in noise])
        if rotate:
            angle = self.R.uniform(-self.angle, self.angle)
            cos, sin = math.cos(angle), math.sin(angle)
            places = np.tensordot([[cos, -sin], [sin, cos]], places, axes=1)
        if scale:
            low, high = self.scale
            enlarge = low < 1 and self.R.random_sample() < 0.5
            places = places * (self.R.uniform(low, 1) if enlarge else self.R.uniform(max(low, 1), high))
        return places

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        places = self.randomize(self.roi_size[:2])
        for key, is_label in self.key_iterator(d, self.is_label):
            volume = as_tensor(d[key])
            shape = volume.shape[1:]
            if any(n < size for n, size in zip(shape, self.roi_size)):
                raise ValueError(f"{key}: {list(shape)} voxels, expected at least roi_size {list(self.roi_size)}")
            first = [n // 2 - size // 2 for n, size in zip(shape, self.roi_size)]
            middle = [slice(a, a + size) for a, size in zip(first, self.roi_size)]
            if places is None:
                d[key] = volume[(slice(None), *middle)].clone()
                continue
            where = torch.as_tensor(places, dtype=torch.float32, device=volume.device)
            where = where + where.new_tensor([(n - 1) / 2 for n in shape[:2]])[:, None, None]
            slices = volume[..., middle[2]]
            d[key] = _deform_label(slices, where) if is_label else interpolate_slices(slices, where, order=3)
        return d


def interpolate_slices(volume: Tensor, places: Tensor, order: int) -> Tensor:
    """Interpolate all slices at the same places, as ``scipy.ndimage.map_coordinates`` with the mode ``constant``.

    Args:
        volume: ``(C, x, y, z)``.
        places: ``(2, u, v)``, coordinates in voxels along x and y; outside the volume, the result is 0.
        order: 1 for linear interpolation, 3 for cubic splines.

    Returns:
        ``(C, u, v, z)``, float32.
    """
    (channels, nx, ny, nz), (_, nu, nv) = volume.shape, places.shape
    nodes = volume.float()
    if order == 3:
        nodes = torch.einsum("ix,jy,cxyz->cijz", _spline_filter(nx).to(nodes), _spline_filter(ny).to(nodes), nodes)
    x, y = places.flatten(1)
    (columns, x_weights), (rows, y_weights) = _neighbours(x, nx, order), _neighbours(y, ny, order)
    neighbours = (columns[:, :, None] * ny + rows[:, None, :]).flatten(1)
    weights = (x_weights[:, :, None] * y_weights[:, None, :]).flatten(1)
    inside = (x >= 0) & (x <= nx - 1) & (y >= 0) & (y <= ny - 1)
    table = nodes.permute(1, 2, 0, 3).reshape(nx * ny, channels * nz)
    values = F.embedding_bag(neighbours, table, mode="sum", per_sample_weights=weights * inside[:, None])
    return values.reshape(nu, nv, channels, nz).permute(2, 0, 1, 3).contiguous()


def _deform_label(label: Tensor, places: Tensor) -> Tensor:
    result = label.new_zeros((label.shape[0], *places.shape[1:], label.shape[3]))
    for value in label.unique():
        if value != 0:
            result[interpolate_slices(label == value, places, order=1) >= 0.5] = value
    return result


def _neighbours(places: Tensor, n: int, order: int) -> tuple[Tensor, Tensor]:
    """Return indices and weights ``(places, order + 1)`` of the nodes that a place reads; nodes are mirrored."""
    below = places.floor()
    t = places - below
    if order == 1:
        weights = torch.stack([1 - t, t], dim=1)
    else:
        s = 1 - t
        inner = [2 / 3 - a**2 * (1 - a / 2) for a in (t, s)]
        weights = torch.stack([s**3 / 6, *inner, t**3 / 6], dim=1)
    first = below.long() - (order - 1) // 2
    nodes = (first[:, None] + torch.arange(order + 1, device=places.device)).abs()
    return ((n - 1) - ((n - 1) - nodes).abs()).clamp(0, n - 1), weights


@lru_cache(maxsize=8)
def _spline_filter(n: int) -> Tensor:
    """Return the matrix ``(n, n)`` from samples to the nodes of the cubic spline through them, mirrored at both ends.

    It is the inverse of the matrix that reads the spline at the samples, with weights 1/6, 4/6 and 1/6.
    """
    samples = np.arange(n)
    reading = np.zeros((n, n))
    for step, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
        nodes = np.abs(samples + step)
        np.add.at(reading, (samples, np.clip((n - 1) - np.abs((n - 1) - nodes), 0, n - 1)), weight)
    return torch.from_numpy(np.linalg.inv(reading)).float()
