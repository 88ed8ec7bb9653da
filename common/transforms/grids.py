"""From a scan's grid to the network's and back, along the axes: what is axis-aligned needs no general resampling."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import compute_shape_offset, zoom_affine
from monai.transforms import MapTransform, SpatialResample
from monai.utils import ensure_tuple_rep
from torch import Tensor

from ..errors import InputError
from ..memory import check_memory
from ..tensors import plain, source_of

MIXED = 255  # marks, among 8-bit labels, a place whose corners differ
SLAB_VALUES = 1 << 19  # scores interpolated at a time: they stay in a processor's cache, and outweigh the calls


def axis_positions(
    to_affine: np.ndarray, to_shape: Sequence[int], from_affine: np.ndarray
) -> tuple[list[int], list[Tensor]] | None:
    """Where the voxels of one grid lie in another, if the axes of the two are parallel.

    Args:
        to_affine: 4x4, voxels to millimetres, of the grid asked about.
        to_shape: its size.
        from_affine: of the grid that the answer counts in.

    Returns:
        for each axis of the first grid, the parallel axis of the second and the positions along it, in its voxels,
        float64; or None where an axis is oblique by more than 0.01 voxel over its length.
    """
    matrix = np.linalg.solve(from_affine, to_affine)
    axes = [int(np.abs(matrix[:3, i]).argmax()) for i in range(3)]
    drift = np.abs(matrix[:3, :3]) * (np.asarray(to_shape) - 1)
    drift[axes, range(3)] = 0
    if sorted(axes) != [0, 1, 2] or drift.max() > 0.01:
        return None
    positions = [
        torch.arange(n, dtype=torch.float64) * matrix[axis, i] + matrix[axis, 3]
        for i, (n, axis) in enumerate(zip(to_shape, axes))
    ]
    return axes, positions


def _corners(positions: Tensor, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels below and above each position, and the weight of the upper one; the edge continues outside."""
    positions = positions.round(decimals=6).clamp(0, size - 1)  # what differs from a whole voxel by rounding is one
    below = positions.long()
    weight = (positions - below).float()
    return below.to(device), (below + 1).clamp(max=size - 1).to(device), weight.to(device)


def sample_along_axes(volume: Tensor, positions: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """Interpolate a volume at the product of three lists of positions, one axis after the other.

    Args:
        volume: ``(C, x, y, z)``, float32.
        positions: along x, y and z, in voxels of ``volume``; outside, the edge continues.
        mode: ``"bilinear"`` (linear along each axis) or ``"nearest"``.

    Returns:
        ``(C, *[len(p) for p in positions])``.
    """
    for axis in sorted(range(3), key=lambda i: len(positions[i]) / volume.shape[i + 1]):  # shrink before growing
        below, above, weight = _corners(positions[axis], volume.shape[axis + 1], volume.device)
        if mode == "nearest" or not weight.any():
            chosen = torch.where(weight > 0.5, above, below)
            if not torch.equal(chosen, torch.arange(volume.shape[axis + 1], device=chosen.device)):
                volume = volume.index_select(axis + 1, chosen)
        else:
            upper = volume.index_select(axis + 1, above)
            weight = weight.reshape([-1 if i == axis else 1 for i in range(3)])
            volume = volume.index_select(axis + 1, below).lerp_(upper, weight)
    return volume


def _placed(volume: Tensor, affine: np.ndarray, meta: Mapping) -> MetaTensor:
    return MetaTensor(volume, meta={**meta, "affine": torch.as_tensor(affine)})


class ResampleAxesd(MapTransform):
    """Orientation and voxel spacing in one pass along the axes, in float32.

    The same grid and values as MONAI's ``Orientationd`` followed by ``Spacingd`` (border continued), which interpolates
    in all directions at once, in float64. A scan with sheared axes (a tilted gantry) goes through
    ``SpatialResample`` instead. The tensor keeps an affine that says where it lies, which is all that
    :class:`ReturnToScand` needs; MONAI's ``Invertd`` cannot undo this step.

    With ``in_plane`` the voxels of a slice become squares of the size that fits its field of view: 512 x 400 voxels
    become 256 x 200, each the mean of the four that it covers. Halfway between two voxels the nearest is the lower.
    The slices of a sheared scan may need more voxels than ``in_plane``.

    Args:
        keys: ``(C, x, y, z)``.
        axcodes: orientation of the axes, such as ``"RAS"``.
        pixdim: voxel size in mm along the new axes; -1 keeps the scan's. None keeps all three.
        mode: ``"bilinear"`` or ``"nearest"``, for all keys or one each.
        in_plane: number of voxels along the longer of the first two new axes, instead of the first two of ``pixdim``.

    Raises:
        InputError: a volume of which nobody said where its voxels lie, or a new grid that the memory does not hold.
        ValueError: ``in_plane`` and a voxel size in plane.
    """

    def __init__(
        self,
        keys: KeysCollection,
        axcodes: str = "RAS",
        pixdim: Sequence[float] | None = None,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
        in_plane: int | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.axcodes = axcodes
        self.pixdim = (-1.0, -1.0, -1.0) if pixdim is None else tuple(pixdim)
        if in_plane is not None and max(self.pixdim[:2]) > 0:
            raise ValueError(f"in_plane={in_plane} and pixdim={self.pixdim}: expected -1, -1 and a slice thickness")
        self.in_plane = in_plane
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self._resample(d[key], key, mode)
        return d

    def _resample(self, volume: Tensor, key: Hashable, mode: str) -> MetaTensor:
        if not isinstance(volume, MetaTensor):
            raise ValueError(f"expected a MetaTensor, whose affine says where it lies, not {type(volume).__name__}")
        if "original_affine" not in volume.meta:  # its affine is then the identity: nobody said where it lies
            raise InputError(
                f"{source_of(volume, key)}: a volume without 'original_affine' in its metadata, so the size and place "
                "of its voxels are not known; hand over a file, or an Image with its affine"
            )
        affine, shape = volume.affine.numpy().astype(np.float64), volume.shape[1:]
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(self.axcodes)
        )
        turned = affine @ nib.orientations.inv_ornt_aff(turn, shape)
        turned_shape = [shape[i] for i in np.argsort(turn[:, 0])]
        self._check_size(source_of(volume, key), max(len(volume), 1), turned, turned_shape)
        new_affine, new_shape = self._grid(turned, turned_shape)
        parallel = axis_positions(new_affine, new_shape, affine)
        if parallel is None:
            resample = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)
            return resample(volume, dst_affine=torch.as_tensor(new_affine), spatial_size=new_shape)
        axes, positions = parallel
        tensor = volume.as_tensor().permute(0, *(a + 1 for a in axes))
        return _placed(sample_along_axes(tensor.float(), positions, mode), new_affine, volume.meta)

    def _check_size(self, where: str, channels: int, affine: np.ndarray, shape: Sequence[int]) -> None:
        """Check that the new grid fits the memory, before any of it is taken."""
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        pixdim = np.where(np.array(self.pixdim) > 0, self.pixdim, spacing)
        if self.in_plane is not None:
            pixdim[:2] = (spacing * shape)[:2].max() / self.in_plane
        new_shape = [math.ceil(n) for n in shape * spacing / pixdim]
        voxels, sizes = (" x ".join(map(str, n)) for n in (shape, new_shape))
        old_mm, new_mm = (" x ".join(f"{v:.4g}" for v in mm) for mm in (spacing, pixdim))
        check_memory(
            where,
            f"resampling {voxels} voxels of {old_mm} mm to {sizes} of {new_mm} mm",
            8 * channels * math.prod(new_shape),  # float32, and as much while it is interpolated
            "correct the spacing in the header, or use a machine with more",
        )

    def _grid(self, affine: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """Affine and shape of the new grid, of those of the scan along the new axes."""
        spacing = np.linalg.norm(affine[:3, :2], axis=0)
        pixdim = np.array(self.pixdim, dtype=np.float64)
        if self.in_plane is not None:
            pixdim[:2] = (spacing * shape[:2]).max() / self.in_plane
        new_affine = zoom_affine(affine, pixdim, diagonal=False)
        new_shape, new_affine[:3, 3] = compute_shape_offset(shape, affine, new_affine)
        if self.in_plane is not None and axis_positions(new_affine, new_shape.tolist(), affine) is not None:
            # the same field of view around the same centre, but for what is below a thousandth of a voxel
            new_shape[:2] = np.ceil(spacing * shape[:2] / pixdim[:2] - 1e-3)
            middle, new_middle = ((np.asarray(n[:2]) - 1) / 2 for n in (shape, new_shape))
            new_affine[:3, 3] += affine[:3, :2] @ middle - new_affine[:3, :2] @ new_middle
        return new_affine, new_shape.tolist()


class ReturnToScand(MapTransform):
    """A network's output on its own grid, as a label map or as probabilities on the grid of the scan.

    The output is interpolated linearly and then decided, as by MONAI's ``Invertd`` and ``AsDiscreted``. Where all eight
    neighbours of a voxel agree, interpolation cannot change the decision and is left out; elsewhere a slab of the scan
    is decided at a time. So no class ever exists at the scan's size. Outside the network's grid, which a crop has made
    smaller than the scan, everything is background. The way back follows from the affine of the image as the network
    saw it and from the scan's, whatever steps lie between (orientation, spacing, crop, pad, flip).
    Only for a scan with sheared axes, a tilted gantry, all classes are interpolated at its size.

    A label map, one channel of integers, cannot be interpolated: each voxel of the scan gets the nearest label.

    Args:
        keys: outputs ``(C, x, y, z)`` on the grid of ``image_key``, or label maps ``(1, x, y, z)`` of 0 to 255.
        image_key: the image as the network saw it; its ``original_affine`` and ``spatial_shape`` are the scan's.
        output: ``"labels"``, uint8, or ``"probabilities"``, the interpolated channels, float32.
        threshold: of a single channel, which is foreground from there on; more channels are decided by the largest,
            the first of equals.

    Raises:
        ValueError: another shape than the image's, more classes than 8 bits hold, or a label map where probabilities
            are wanted.
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
        parallel = axis_positions(scan_affine, scan_shape, image.affine.cpu().numpy().astype(np.float64))
        for key in self.key_iterator(d):
            scores = plain(d[key])
            if scores.shape[1:] != image.shape[1:]:
                raise ValueError(f"'{key}' of shape {list(scores.shape)} for an image of {list(image.shape)}")
            given = len(scores) == 1 and not scores.is_floating_point()  # labels, which need no decision
            if given:
                if self.output == "probabilities":
                    raise ValueError(f"'{key}' is a label map ({scores.dtype}), which has no probabilities")
            elif self.output == "labels" and len(scores) >= MIXED:
                raise ValueError(f"{len(scores)} classes, but a label has 8 bits")
            scores = scores.to(torch.uint8 if given else torch.float32)
            if parallel is None:
                result = self._sheared(scores, image.affine, scan_affine, scan_shape)
            else:
                result = self._parallel(scores, *parallel)
            d[key] = _placed(result, scan_affine, image.meta)
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

    def _sheared(self, scores: Tensor, affine: Tensor, scan_affine: np.ndarray, scan_shape: Sequence[int]) -> Tensor:
        given = scores.dtype == torch.uint8
        mode = "nearest" if given else "bilinear"
        values = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)(
            MetaTensor(scores, affine=affine), dst_affine=torch.as_tensor(scan_affine), spatial_size=scan_shape
        ).as_tensor()
        if given:
            result = values.to(torch.uint8)
        else:
            result = _decide(values, self.threshold)[None] if self.output == "labels" else values
        matrix = np.linalg.solve(affine.cpu().numpy().astype(np.float64), scan_affine)
        lines = [torch.arange(n, dtype=torch.float64, device=scores.device) for n in scan_shape]
        voxels = torch.meshgrid(*lines, indexing="ij")
        for row, n in zip(matrix.tolist(), scores.shape[1:]):
            position = row[3] + sum(step * voxel for step, voxel in zip(row, voxels))
            result[:, (position < -0.5 - 1e-4) | (position > n - 0.5 + 1e-4)] = 0
        return result


class DecideLabeld(MapTransform):
    """A network's output as a label map on its own grid, decided as :class:`ReturnToScand` does.

    Args:
        keys: outputs ``(C, x, y, z)``, which become label maps ``(1, x, y, z)``, uint8.
        threshold: of a single channel; more channels are decided by the largest, the first of equals.
    """

    def __init__(self, keys: KeysCollection, threshold: float = 0.5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = _decide(plain(d[key]), self.threshold)[None]
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
    corners = [_corners(line, size, scores.device) for line, size in zip(positions, scores.shape[1:])]
    cells = [below.clamp(max=size - 1) for (below, _, _), size in zip(corners, labels.shape)]
    (below, above, weight), *in_plane = corners
    planes = max(1, SLAB_VALUES // max(scores[:, 0].numel(), result[0].numel()))
    for start in range(0, len(result), planes):
        chosen = slice(start, start + planes)
        slab = labels.index_select(0, cells[0][chosen]).index_select(1, cells[1]).index_select(2, cells[2])
        x, y, z = (slab == MIXED).nonzero(as_tuple=True)
        if len(x):
            upper = scores.index_select(1, above[chosen])
            values = scores.index_select(1, below[chosen]).lerp_(upper, weight[chosen, None, None])
            slab[x, y, z] = _decide(_at_points(values, in_plane, x, y, z), threshold)
        result[chosen] = slab


def _decide(values: Tensor, threshold: float) -> Tensor:
    """``(C, ...)`` to 8-bit labels."""
    if len(values) == 1:
        return (values[0] >= threshold).to(torch.uint8)
    return values.max(0).indices.to(torch.uint8)


def _at_points(
    planes: Tensor, corners: Sequence[tuple[Tensor, Tensor, Tensor]], x: Tensor, y: Tensor, z: Tensor
) -> Tensor:
    """``(C, points)``: some points of the planes ``(C, x, ...)`` at the product of positions along y and z."""
    (y0, y1, wy), (z0, z1, wz) = ([part[i] for part in corner] for corner, i in zip(corners, (y, z)))
    flat = planes.reshape(len(planes), -1)
    rows = [(x * planes.shape[2] + line) * planes.shape[3] for line in (y0, y1)]
    lower, upper = (torch.lerp(flat.index_select(1, row + z0), flat.index_select(1, row + z1), wz) for row in rows)
    return torch.lerp(lower, upper, wy)
