"""From a scan's grid to the network's and back, along the axes: what is axis-aligned needs no general resampling."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import zoom_affine
from monai.transforms import MapTransform, SpatialResample
from monai.utils import SpaceKeys, ensure_tuple_rep
from torch import Tensor

from ..errors import InputError
from ..geometry import grid_difference, to_ras
from ..memory import check_memory
from ..tensors import affine_of, plain, source_of

MIXED = 255  # marks, among 8-bit labels, a place whose corners differ
SLAB_VALUES = 1 << 19  # scores interpolated at a time: they stay in a processor's cache, and outweigh the calls

logger = logging.getLogger(__name__)


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

    The new grid begins at the least corner of the scan along the new axes and reaches within half a voxel of the
    greatest, so that no slice is lost, however the scan is turned. Grid and values are those of MONAI's
    ``Orientationd`` followed by ``Spacingd`` (border continued), which interpolates in all directions at once, in
    float64, and centres the grids of some oblique scans half a voxel off. A scan with sheared axes (a tilted gantry)
    goes through ``SpatialResample`` instead. The tensor keeps an affine that says where it lies, and the grid made here
    (``resampled_affine``, ``resampled_shape``), for :class:`ReturnToScand`; MONAI's ``Invertd`` cannot undo this step.

    All keys get the grid of the first, the image: a label is never resampled onto a grid of its own.

    An affine in another coordinate system, such as ``ITKReader(affine_lps_to_ras=False)`` leaves with ``space`` LPS, is
    converted to RAS; without ``space``, MONAI takes it for RAS. The result's affines are in RAS always.

    With ``in_plane`` the voxels of a slice become squares of the size that fits its field of view: 512 x 400 voxels
    become 256 x 200, each the mean of the four that it covers. Halfway between two voxels the nearest is the lower.
    The slices of a sheared scan may need more voxels than ``in_plane``.

    Args:
        keys: ``(C, x, y, z)``, all on one grid.
        axcodes: orientation of the axes, such as ``"RAS"``.
        pixdim: voxel size in mm along the new axes; -1 keeps the scan's. None keeps all three.
        mode: ``"bilinear"``, or ``"nearest"`` for a label map, for all keys or one each.
        in_plane: number of voxels along the longer of the first two new axes, instead of the first two of ``pixdim``.

    Raises:
        InputError: a volume without the place of its voxels or in an unknown space; a key on another grid than the
            first, see :func:`common.geometry.grid_difference`; or a
            new grid that the memory does not hold.
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
        first: MetaTensor | None = None
        for key, mode in self.key_iterator(d, self.mode):
            volume = self._in_ras(d[key], key)
            if first is None:
                first, (new_affine, new_shape) = volume, self._grid(affine_of(volume), volume.shape[1:])
                _check_size(source_of(volume, key), volume, new_affine, new_shape)
            affine = affine_of(first)
            difference = grid_difference(volume.shape[1:], affine_of(volume), first.shape[1:], affine)
            if difference:
                raise InputError(
                    f"{source_of(volume, key)}: another grid than {source_of(first, self.keys[0])}: {difference}; "
                    "resample it onto the image"
                )
            result = self._resample(plain(volume).float(), affine, new_affine, new_shape, mode)
            if mode == "nearest":
                _name_lost(plain(volume), result, source_of(volume, key), new_affine)
            grid = {"resampled_affine": new_affine.copy(), "resampled_shape": np.array(new_shape)}
            d[key] = _placed(result, new_affine, {**volume.meta, **grid})
        return d

    def _in_ras(self, volume: Tensor, key: Hashable) -> MetaTensor:
        """The same voxels with affines to RAS+."""
        if not isinstance(volume, MetaTensor):
            raise ValueError(f"expected a MetaTensor, whose affine says where it lies, not {type(volume).__name__}")
        name = source_of(volume, key)
        if "original_affine" not in volume.meta:  # its affine is then the identity: nobody said where it lies
            raise InputError(
                f"{name}: a volume without 'original_affine' in its metadata, so the size and place "
                "of its voxels are not known; hand over a file, or an Image with its affine"
            )
        original = to_ras(volume.meta, name) @ np.asarray(volume.meta["original_affine"], dtype=np.float64)
        meta = {**volume.meta, "original_affine": original, "space": SpaceKeys.RAS}
        return _placed(plain(volume), to_ras(volume.meta, name) @ affine_of(volume), meta)

    def _resample(
        self, volume: Tensor, affine: np.ndarray, new_affine: np.ndarray, new_shape: Sequence[int], mode: str
    ) -> Tensor:
        parallel = axis_positions(new_affine, new_shape, affine)
        if parallel is None:
            resample = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)
            placed = MetaTensor(volume, affine=torch.as_tensor(affine))
            return plain(resample(placed, dst_affine=torch.as_tensor(new_affine), spatial_size=new_shape))
        axes, positions = parallel
        return sample_along_axes(volume.permute(0, *(a + 1 for a in axes)), positions, mode)

    def _grid(self, affine: np.ndarray, scan_shape: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """Affine and shape of the new grid of a scan."""
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(self.axcodes)
        )
        affine = affine @ nib.orientations.inv_ornt_aff(turn, scan_shape)
        shape = np.array([scan_shape[i] for i in np.argsort(turn[:, 0])])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        pixdim = np.array(self.pixdim, dtype=np.float64)
        if self.in_plane is not None:
            pixdim[:2] = (spacing * shape)[:2].max() / self.in_plane
        new_affine = zoom_affine(affine, pixdim, diagonal=False)
        corners = np.stack(np.meshgrid(*((0, n - 1) for n in shape), indexing="ij")).reshape(3, -1)
        along = np.linalg.solve(new_affine[:3, :3], affine[:3, :3]) @ corners  # the new axes, in voxels
        least, extent = along.min(1), np.ptp(along, axis=1)
        new_shape = np.round(extent + 1.0)
        if self.in_plane is not None:
            # the same field of view around the same centre, but for what is below a thousandth of a voxel; of what
            # sheared slices lean out, half a voxel is left to the edge, which a tilt by rounding does not reach
            scale = spacing[:2] / pixdim[:2]
            lean = np.ceil(extent[:2] - scale * (shape[:2] - 1) - 0.5).clip(0)
            new_shape[:2] = np.ceil(scale * shape[:2] - 1e-3) + lean
            least[:2] += (extent[:2] - new_shape[:2] + 1) / 2
        new_affine[:3, 3] = affine[:3, 3] + new_affine[:3, :3] @ least
        return new_affine, new_shape.astype(int).tolist()


def _check_size(where: str, volume: MetaTensor, new_affine: np.ndarray, new_shape: Sequence[int]) -> None:
    """Check that a new grid fits the memory, before any of it is taken."""
    voxels, sizes = (" x ".join(map(str, n)) for n in (volume.shape[1:], new_shape))
    old_mm, new_mm = (
        " x ".join(f"{step:.4g}" for step in np.linalg.norm(affine[:3, :3], axis=0))
        for affine in (affine_of(volume), new_affine)
    )
    check_memory(
        where,
        f"resampling {voxels} voxels of {old_mm} mm to {sizes} of {new_mm} mm",
        8 * max(len(volume), 1) * math.prod(new_shape),  # float32, and as much while it is interpolated
        "correct the spacing in the header, or use a machine with more",
    )


def _name_lost(label: Tensor, resampled: Tensor, name: str, affine: np.ndarray) -> None:
    """Warn of labels that no voxel of the new grid has."""
    for value in range(1, min(int(label.max()), 255) + 1 if label.numel() else 0):
        count = int((label == value).sum())
        if count and not (resampled == value).any():
            size = " x ".join(f"{step:.3g}" for step in np.linalg.norm(affine[:3, :3], axis=0))
            logger.warning(
                "%s: label %d (%d voxels) is lost on the network's grid of %s mm, as no centre of a voxel lies in it; "
                "the case counts as one without this label",
                name, value, count, size,
            )  # fmt: skip


class ReturnToScand(MapTransform):
    """A network's output on its own grid, as a label map or as probabilities on the grid of the scan.

    The output is interpolated linearly and then decided, as by MONAI's ``Invertd`` and ``AsDiscreted``. Where all eight
    neighbours of a voxel agree, interpolation cannot change the decision and is left out; elsewhere a slab of the scan
    is decided at a time. So no class ever exists at the scan's size. Outside a crop, everything is background; padding
    is left out, and where a voxel of the scan lies beyond the last of :class:`ResampleAxesd`'s grid, by half a voxel at
    most, it continues that one. The inverse follows from the affine of the image as the network saw it and from the
    scan's, whatever steps lie between (orientation, spacing, crop, pad, flip).
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
        box, affine = _without_padding(image)
        parallel = axis_positions(scan_affine, scan_shape, affine)
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
            scores = scores[(slice(None), *box)].to(torch.uint8 if given else torch.float32)
            if parallel is None:
                result = self._sheared(scores, affine, scan_affine, scan_shape)
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

    def _sheared(
        self, scores: Tensor, affine: np.ndarray, scan_affine: np.ndarray, scan_shape: Sequence[int]
    ) -> Tensor:
        given = scores.dtype == torch.uint8
        mode = "nearest" if given else "bilinear"
        resample = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)
        placed = MetaTensor(scores, affine=torch.as_tensor(affine))
        values = plain(resample(placed, dst_affine=torch.as_tensor(scan_affine), spatial_size=scan_shape))
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
    """The voxels of an image that lie on the grid of :class:`ResampleAxesd`, not beyond it, and their affine."""
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
