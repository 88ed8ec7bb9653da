"""Resample the output of a network onto the grid of its scan, and decide the label of each voxel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample
from torch import Tensor

from ..tensors import affine_of, as_tensor
from .grids import axis_positions, linear_weights, sample_along_axes, with_affine

MIXED = 255  # marks, among 8-bit labels, a place with corners that differ
STRIP_VALUES = 1 << 19  # scores interpolated at a time: they stay in a processor's cache, and outweigh the calls


class ReturnToScand(MapTransform):
    """Resample the output of a network onto the grid of the scan, as a label map or as probabilities.

    The output is interpolated linearly, and then each voxel gets its label, as in MONAI's ``Invertd`` and
    ``AsDiscreted``. Where all eight neighbours of a voxel agree, interpolation cannot change the label and is left out.
    The other voxels are computed strip by strip, so that no class exists at the scan's size in memory. Only for a scan
    with sheared axes, from a tilted gantry, all classes are interpolated at its size.

    The inverse resampling follows from two affines: that of the image at the network's input and that of the scan. The
    steps between them (orientation, spacing, crop, pad, flip) do not matter. Outside a crop, the label is background.
    Padding is left out. A voxel of the scan beyond the grid of ``ResampleAxesd``, by half a voxel at most, gets the
    value of the last voxel of that grid.

    A label map, one channel of integers, cannot be interpolated: each voxel of the scan gets the nearest label.

    Args:
        keys: outputs ``(C, x, y, z)`` on the grid of ``image_key``, or label maps ``(1, x, y, z)``, 0 to 255.
        image_key: image at the network's input; its ``original_affine`` and ``spatial_shape`` are those of the scan.
        output: ``"labels"``, uint8, or ``"probabilities"``, the interpolated channels, float32.
        threshold: lowest value of foreground if there is one channel. Of several channels, the largest gives the label,
            the first one among equals.

    Raises:
        ValueError: if the shape differs from the image's, if there are more classes than 8 bits hold, or if a label map
            should become probabilities.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        output: str = "labels",
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if output not in ("labels", "probabilities"):
            raise ValueError(f"output={output!r}: expected 'labels' or 'probabilities'")
        self.image_key = image_key
        self.output = output
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        scan_affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
        scan_shape = [int(n) for n in image.meta["spatial_shape"]]
        box, affine = _without_padding(image)
        parallel = axis_positions(scan_affine, scan_shape, affine)
        for key in self.key_iterator(d):
            scores = as_tensor(d[key])
            if scores.shape[1:] != image.shape[1:]:
                raise ValueError(
                    f"'{key}' of shape {list(scores.shape)}, expected the size of the image, {list(image.shape)}"
                )
            given = len(scores) == 1 and not scores.is_floating_point()  # labels, which need no decision
            if given:
                if self.output == "probabilities":
                    raise ValueError(f"'{key}' is a label map ({scores.dtype}), which has no probabilities")
            elif self.output == "labels" and len(scores) >= MIXED:
                raise ValueError(f"{len(scores)} classes, expected fewer than {MIXED}, since a label has 8 bits")
            scores = scores[(slice(None), *box)].to(torch.uint8 if given else torch.float32)
            if parallel is None:
                result = self._sheared(scores, affine, scan_affine, scan_shape)
            else:
                result = self._parallel(scores, *parallel)
            d[key] = with_affine(result, scan_affine, image.meta)
        return d

    def _parallel(self, scores: Tensor, axes: Sequence[int], positions: Sequence[Tensor]) -> Tensor:
        given = scores.dtype == torch.uint8
        scores = scores.permute(0, *(a + 1 for a in axes))
        shape = [len(line) for line in positions]
        within = [(p > -0.5 - 1e-4) & (p < n - 0.5 + 1e-4) for p, n in zip(positions, scores.shape[1:])]
        covered = [slice(int(w.int().argmax()), int(w.int().argmax()) + int(w.sum())) for w in within]
        inside = [line[w] for line, w in zip(positions, within)]
        if self.output == "labels" and not given:
            result = torch.zeros(1, *shape, dtype=torch.uint8, device=scores.device)
            if all(len(line) for line in inside):
                _decide_into(result[0, covered[0], covered[1], covered[2]], scores, inside, self.threshold)
        else:
            result = torch.zeros(len(scores), *shape, dtype=scores.dtype, device=scores.device)
            mode = "nearest" if given else "bilinear"
            result[:, covered[0], covered[1], covered[2]] = sample_along_axes(scores, inside, mode)
        return result

    def _sheared(
        self, scores: Tensor, affine: np.ndarray, scan_affine: np.ndarray, scan_shape: Sequence[int]
    ) -> Tensor:
        given = scores.dtype == torch.uint8
        mode = "nearest" if given else "bilinear"
        resample = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)
        moved = MetaTensor(scores, affine=torch.as_tensor(affine))
        values = as_tensor(resample(moved, dst_affine=torch.as_tensor(scan_affine), spatial_size=scan_shape))
        if given:
            result = values.to(torch.uint8)
        else:
            result = _decide(values, self.threshold)[None] if self.output == "labels" else values
        matrix = np.linalg.solve(affine, scan_affine)
        lines = [torch.arange(n, dtype=torch.float64, device=scores.device) for n in scan_shape]
        voxels = torch.meshgrid(*lines, indexing="ij")
        for row, n in zip(matrix.tolist(), scores.shape[1:]):
            position = row[3] + sum(step * voxel for step, voxel in zip(row, voxels))
            result[:, (position < -0.5 - 1e-4) | (position > n - 0.5 + 1e-4)] = 0
        return result


def _without_padding(image: MetaTensor) -> tuple[list[slice], np.ndarray]:
    """Return the voxels of an image that lie on the grid of ``ResampleAxesd`` and the affine of this part."""
    affine = affine_of(image)
    if "resampled_affine" not in image.meta:
        return [slice(None)] * 3, affine
    ends = np.stack([np.zeros(3), np.asarray(image.meta["resampled_shape"]) - 1.0], axis=1)
    ends = np.linalg.solve(affine, np.asarray(image.meta["resampled_affine"])) @ np.vstack([ends, np.ones(2)])
    first = np.ceil(ends[:3].min(1) - 1e-3).astype(int).clip(0)
    last = np.floor(ends[:3].max(1) + 1e-3).astype(int)
    affine[:3, 3] += affine[:3, :3] @ first
    return [slice(int(a), int(b) + 1) for a, b in zip(first, last)], affine


class DecideLabeld(MapTransform):
    """Turn the output of a network into a label map on its own grid, by the rule of :class:`ReturnToScand`.

    Args:
        keys: outputs ``(C, x, y, z)``, which become label maps ``(1, x, y, z)``, uint8.
        threshold: as for :class:`ReturnToScand`.
    """

    def __init__(self, keys: KeysCollection, threshold: float = 0.5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = _decide(as_tensor(d[key]), self.threshold)[None]
        return d


def _decide_into(result: Tensor, scores: Tensor, positions: Sequence[Tensor], threshold: float) -> None:
    """Write into ``result``, ``(x, y, z)``, the label at the product of ``positions`` in ``scores``."""
    if len(scores) == 2:  # one difference decides
        scores = (scores[1] - scores[0])[None]
        threshold = float(np.nextafter(np.float32(0), np.float32(1)))
    labels = torch.stack([_decide(plane, threshold) for plane in scores.unbind(1)])
    for axis in range(3):  # now of cells between voxels: the label of all eight corners, or MIXED
        if labels.shape[axis] > 1:
            first, second = (
                labels.narrow(axis, 0, labels.shape[axis] - 1),
                labels.narrow(axis, 1, labels.shape[axis] - 1),
            )
            labels = torch.where(first == second, first, MIXED)
    corners = [linear_weights(line, size, scores.device) for line, size in zip(positions, scores.shape[1:])]
    cells = [below.clamp(max=size - 1) for (below, _, _), size in zip(corners, labels.shape)]
    (below, above, weight), *in_plane = corners
    planes = max(1, STRIP_VALUES // max(scores[:, 0].numel(), result[0].numel()))
    for start in range(0, len(result), planes):
        chosen = slice(start, start + planes)
        strip = labels.index_select(0, cells[0][chosen]).index_select(1, cells[1]).index_select(2, cells[2])
        x, y, z = (strip == MIXED).nonzero(as_tuple=True)
        if len(x):
            upper = scores.index_select(1, above[chosen])
            values = scores.index_select(1, below[chosen]).lerp_(upper, weight[chosen, None, None])
            strip[x, y, z] = _decide(_at_points(values, in_plane, x, y, z), threshold)
        result[chosen] = strip


def _decide(values: Tensor, threshold: float) -> Tensor:
    """Return the 8-bit labels ``(...)`` of values ``(C, ...)``."""
    if len(values) == 1:
        return (values[0] >= threshold).to(torch.uint8)
    return values.max(0).indices.to(torch.uint8)


def _at_points(
    planes: Tensor, corners: Sequence[tuple[Tensor, Tensor, Tensor]], x: Tensor, y: Tensor, z: Tensor
) -> Tensor:
    """Return values ``(C, points)`` at some points of the planes ``(C, x, ...)``, interpolated along y and z."""
    (y0, y1, wy), (z0, z1, wz) = ([part[i] for part in corner] for corner, i in zip(corners, (y, z)))
    flat = planes.reshape(len(planes), -1)
    rows = [(x * planes.shape[2] + line) * planes.shape[3] for line in (y0, y1)]
    lower, upper = (torch.lerp(flat.index_select(1, row + z0), flat.index_select(1, row + z1), wz) for row in rows)
    return torch.lerp(lower, upper, wy)
