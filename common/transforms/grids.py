"""Resample a scan to the network's grid, one axis at a time where the axes of the two grids are parallel."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Mapping, Sequence

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
from ..geometry import check_voxel_size, grid_difference, to_ras
from ..memory import check_memory
from ..tensors import affine_of, as_tensor, source_of
from .host_spacing import host_scaling

logger = logging.getLogger(__name__)


def axis_positions(
    to_affine: np.ndarray, to_shape: Sequence[int], from_affine: np.ndarray
) -> tuple[list[int], list[Tensor]] | None:
    """Return the positions of one grid's voxels along the axes of another grid, if the axes are parallel.

    Args:
        to_affine: 4x4 affine of the first grid, voxels to millimetres.
        to_shape: size of the first grid, in voxels.
        from_affine: 4x4 affine of the second grid.

    Returns:
        for each axis of the first grid, the parallel axis of the second grid and the positions along it, in voxels of
        the second grid, float64. None if an axis deviates by more than 0.01 voxel over its length.
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


def linear_weights(positions: Tensor, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the voxel below each position, the voxel above it, and the weight of the upper one.

    Args:
        positions: places along one axis, in voxels; a place outside the volume gets the value at the edge.
        size: number of voxels along the axis.
        device: device of the results.
    """
    positions = positions.round(decimals=6).clamp(0, size - 1)  # removes rounding errors beside a voxel's centre
    below = positions.long()
    weight = (positions - below).float()
    return below.to(device), (below + 1).clamp(max=size - 1).to(device), weight.to(device)


def sample_along_axes(volume: Tensor, positions: Sequence[Tensor], mode: str = "bilinear") -> Tensor:
    """Interpolate a volume on the grid of three lists of positions, one axis after the other.

    Args:
        volume: tensor ``(C, x, y, z)``, float32.
        positions: places along x, y and z, in voxels of ``volume``; a place outside gets the value at the edge.
        mode: ``"bilinear"`` (linear along each axis) or ``"nearest"``.

    Returns:
        tensor ``(C, len(positions[0]), len(positions[1]), len(positions[2]))``.
    """
    for axis in sorted(
        range(3), key=lambda i: len(positions[i]) / volume.shape[i + 1]
    ):  # the axis that shrinks most comes first: less to compute
        below, above, weight = linear_weights(positions[axis], volume.shape[axis + 1], volume.device)
        if mode == "nearest" or not weight.any():
            chosen = torch.where(weight > 0.5, above, below)
            if not torch.equal(chosen, torch.arange(volume.shape[axis + 1], device=chosen.device)):
                volume = volume.index_select(axis + 1, chosen)
        else:
            upper = volume.index_select(axis + 1, above)
            weight = weight.reshape([-1 if i == axis else 1 for i in range(3)])
            volume = volume.index_select(axis + 1, below).lerp_(upper, weight)
    return volume


def with_affine(volume: Tensor, affine: np.ndarray, meta: Mapping) -> MetaTensor:
    """Return the volume with this affine in place of the one in ``meta``."""
    return MetaTensor(volume, meta={**meta, "affine": torch.as_tensor(affine)})


class ResampleAxesd(MapTransform):
    """Resample to an orientation and a voxel size in one pass along the axes, in float32.

    The new grid begins at the scan's least corner along the new axes. It ends within half a voxel of the greatest
    corner, so that no slice is lost, however the scan is rotated. Grid and values equal those of MONAI's
    ``Orientationd`` and ``Spacingd`` with border padding. These interpolate in all directions at once, in float64, and
    centre the grids of some oblique scans half a voxel off.

    A scan with sheared axes (a tilted gantry) goes through MONAI's ``SpatialResample`` instead. The result carries its
    affine. It also carries the new grid (``resampled_affine``, ``resampled_shape``) for ``ReturnToScand``. MONAI's
    ``Invertd`` cannot invert this transform.

    All keys are resampled to the grid of the first key, the image, so that a label never gets a grid of its own.

    An affine in another coordinate system is converted to RAS. ``ITKReader(affine_lps_to_ras=False)``, for example,
    sets ``space`` to LPS. Without ``space``, the affine counts as RAS, as in MONAI. The resulting affines are in RAS.

    With ``in_plane``, the voxels of a slice become squares, and the voxel size follows from the field of view. 512 x
    400 voxels become 256 x 200, each the mean of the four that it covers. Halfway between two voxels, ``"nearest"``
    takes the lower one. The slices of a sheared scan may need more voxels than ``in_plane``.

    Args:
        keys: volumes ``(C, x, y, z)``, all on one grid.
        axcodes: orientation of the new axes, such as ``"RAS"``.
        pixdim: voxel size along the new axes, in mm; -1 keeps the scan's size. None keeps all three.
        mode: ``"bilinear"``, or ``"nearest"`` for a label map; one for all keys or one for each.
        in_plane: number of voxels along the longer of the first two new axes; replaces the first two of ``pixdim``.

    Raises:
        InputError: a volume has no affine, or its space is unknown; a voxel size is outside
            :data:`common.geometry.VOXEL_MM`; a key has another grid than the first one (see
            :func:`common.geometry.grid_difference`); or the new grid does not fit the memory.
        ValueError: both ``in_plane`` and a voxel size in plane are given.
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

    def shape_after(
        self, shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return shape and spacing of the result, see :mod:`common.transforms`.

        Rounding in an oblique affine can move an extent across half a voxel. The shape is the larger one then.
        """
        straight = np.diag([*(step * (1 + 1e-6) for step in spacing), 1.0])
        affine, new_shape = self._grid(straight, shape)
        return tuple(new_shape), tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        d = dict(data)
        first: MetaTensor | None = None
        for key, mode in self.key_iterator(d, self.mode):
            volume = self._in_ras(d[key], key)
            if first is None:
                first, (new_affine, new_shape) = volume, self._grid(affine_of(volume), volume.shape[1:])
                check_voxel_size(affine_of(volume), source_of(volume, key))
                old_mm, new_mm = (np.linalg.norm(a[:3, :3], axis=0).tolist() for a in (affine_of(volume), new_affine))
                check_grid_memory(
                    source_of(volume, key), volume.shape[1:], new_shape, old_mm, new_mm, channels=len(volume)
                )
            affine = affine_of(first)
            difference = grid_difference(volume.shape[1:], affine_of(volume), first.shape[1:], affine)
            if difference:
                raise InputError(
                    f"{source_of(volume, key)}: another grid than {source_of(first, self.keys[0])}: {difference}; "
                    "resample it onto the image"
                )
            result = self._resample(as_tensor(volume).float(), affine, new_affine, new_shape, mode)
            if mode == "nearest":
                _warn_of_lost_labels(as_tensor(volume), result, source_of(volume, key), new_affine)
            grid = {"resampled_affine": new_affine.copy(), "resampled_shape": np.array(new_shape)}
            d[key] = with_affine(result, new_affine, {**volume.meta, **grid})
        return d

    def _in_ras(self, volume: Tensor, key: Hashable) -> MetaTensor:
        """Return the same voxels with affines to RAS+."""
        if not isinstance(volume, MetaTensor):
            raise ValueError(f"expected a MetaTensor with an affine, found {type(volume).__name__}")
        name = source_of(volume, key)
        if "original_affine" not in volume.meta:  # the affine is then MONAI's default, the identity
            raise InputError(
                f"{name}: a volume without 'original_affine', so size and position of its voxels are unknown; "
                "give a file, or an image with its affine"
            )
        scaling = host_scaling(volume.meta, name)
        original = to_ras(volume.meta, name) @ np.asarray(volume.meta["original_affine"], dtype=np.float64) @ scaling
        meta = {**volume.meta, "original_affine": original, "space": SpaceKeys.RAS}
        return with_affine(as_tensor(volume), to_ras(volume.meta, name) @ affine_of(volume) @ scaling, meta)

    def _resample(
        self, volume: Tensor, affine: np.ndarray, new_affine: np.ndarray, new_shape: Sequence[int], mode: str
    ) -> Tensor:
        parallel = axis_positions(new_affine, new_shape, affine)
        if parallel is None:
            resample = SpatialResample(mode=mode, padding_mode="border", dtype=torch.float32)
            moved = MetaTensor(volume, affine=torch.as_tensor(affine))
            return as_tensor(resample(moved, dst_affine=torch.as_tensor(new_affine), spatial_size=new_shape))
        axes, positions = parallel
        return sample_along_axes(volume.permute(0, *(a + 1 for a in axes)), positions, mode)

    def _grid(self, affine: np.ndarray, scan_shape: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """Return affine and shape of the new grid of a scan."""
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
            # The field of view and its centre stay, except for less than a thousandth of a voxel. Sheared slices lean
            # out of it: the grid leaves out up to half a voxel of that, more than rounding in a header makes.
            scale = spacing[:2] / pixdim[:2]
            lean = np.ceil(extent[:2] - scale * (shape[:2] - 1) - 0.5).clip(0)
            new_shape[:2] = np.ceil(scale * shape[:2] - 1e-3) + lean
            least[:2] += (extent[:2] - new_shape[:2] + 1) / 2
        new_affine[:3, 3] = affine[:3, 3] + new_affine[:3, :3] @ least
        return new_affine, new_shape.astype(int).tolist()


def check_grid_memory(
    where: str,
    shape: Sequence[int],
    new_shape: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    channels: int = 1,
) -> None:
    """Check that a new grid fits the memory; a false spacing in a header asks for far too many voxels.

    Args:
        where: name of the file, for the message.
        shape, new_shape: shapes of the scan and of the new grid, in voxels.
        spacing, new_spacing: their voxel sizes in mm.
        channels: number of channels that are resampled.

    Raises:
        InputError: the free memory is smaller than the resampled volume needs.
    """
    voxels, new_voxels = (" x ".join(map(str, n)) for n in (shape, new_shape))
    mm, new_mm = (" x ".join(f"{step:.4g}" for step in steps) for steps in (spacing, new_spacing))
    check_memory(
        where,
        f"resampling {voxels} voxels of {mm} mm to {new_voxels} of {new_mm} mm",
        8 * max(channels, 1) * math.prod(new_shape),  # float32; interpolation needs as much again
        "correct the spacing in the header, or use a machine with more memory",
    )


def _warn_of_lost_labels(label: Tensor, resampled: Tensor, name: str, affine: np.ndarray) -> None:
    """Log a warning for each label that no voxel of the new grid has."""
    for value in range(1, min(int(label.max()), 255) + 1 if label.numel() else 0):
        count = int((label == value).sum())
        if count and not (resampled == value).any():
            size = " x ".join(f"{step:.3g}" for step in np.linalg.norm(affine[:3, :3], axis=0))
            logger.warning(
                "%s: label %d (%d voxels) is lost on the network's grid of %s mm: no voxel centre lies in it; "
                "the case counts as one without this label",
                name, value, count, size,
            )  # fmt: skip
