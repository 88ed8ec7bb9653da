"""Read a volume of any format, or its grid alone, and check it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import numpy as np

from ..errors import InputError, os_failure
from ..geometry import check_voxel_size
from .dicom import ordered_slices, read_series, series_affine
from .dicom_trees import is_dicom, series_in_path
from .itk_files import SUFFIXES as ITK_SUFFIXES
from .itk_files import read_itk, read_itk_header
from .nifti import SUFFIXES as NIFTI_SUFFIXES
from .nifti import read_nifti, read_nifti_header

FLAT = 1e-3  # volume of a voxel, relative to a box with the same edges, below which its axes lie in a plane

logger = logging.getLogger(__name__)


def read_volume(path: Path, integers: bool = False, labels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Read one file as a float32 array ``(x, y, z)`` or ``(x, y, z, channel)`` and its 4x4 affine to RAS+ millimetres.

    A folder is read as a series of DICOM slices, always ``(x, y, z)``. The header is checked before a voxel is read,
    so that truncated files and files larger than the memory are refused early.

    Args:
        path: file or folder.
        integers: whether integers without slope and intercept keep their type; DICOM is always float32.
        labels: whether NaN and infinite voxels are errors. Otherwise they become the smallest finite value, with a
            warning.

    Raises:
        InputError: see :class:`common.data.VolumeReader`.
    """
    try:
        kind = _format_of(path)
        if kind == "DICOM":
            array, affine = read_series(path)
        else:
            array, affine = (read_nifti if kind == "NIfTI" else read_itk)(path, integers)
    except OSError as error:
        raise InputError(os_failure(error, str(path))) from error
    while array.ndim > 3 and array.shape[3] == 1:  # one time point, or the unused axis of NIfTI vector images
        array = array[:, :, :, 0]
    _check_place(path, affine)
    check_grid(path, array.shape, affine)
    finite = np.isfinite(array)
    if not finite.all():
        if not finite.any():
            raise InputError(f"{path}: all voxels are NaN or infinite; copy or convert it again")
        if labels:
            raise InputError(
                f"{path}: {(~finite).sum()} of {finite.size} voxels are NaN or infinite, expected label values; set "
                "background voxels to 0"
            )
        lowest = array[finite].min()
        logger.warning(
            "%s: %d voxels are NaN or infinite; set to the smallest value, %g", path, (~finite).sum(), lowest
        )
        array = np.where(finite, array, lowest)
    return array, affine


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Read only the header of a volume; return the shape and affine of :func:`read_volume`.

    Raises:
        InputError: see :func:`read_volume`; voxels are not checked.
    """
    try:
        kind = _format_of(path)
        if kind == "DICOM":
            slices = ordered_slices(path)
            shape, affine = (*slices[0].size[:2], len(slices)), series_affine(slices)
        else:
            shape, affine, *_ = (read_nifti_header if kind == "NIfTI" else read_itk_header)(path)
    except OSError as error:
        raise InputError(os_failure(error, str(path))) from error
    while len(shape) > 3 and shape[3] == 1:
        shape = (*shape[:3], *shape[4:])
    _check_place(path, affine)
    check_grid(path, shape, affine)
    return shape, affine


FARTHEST = 1e6  # mm


def _check_place(path: Path, affine: np.ndarray) -> None:
    """Check that an affine has distances of a real scan; float32 is too coarse for positions much farther away.

    Raises:
        InputError: a side of the voxels is outside :data:`common.geometry.VOXEL_MM`, or the origin is beyond
            ``FARTHEST``.
    """
    if not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        return  # check_grid refuses it
    check_voxel_size(affine, str(path))
    if (farthest := np.abs(affine[:3, 3]).max()) > FARTHEST:
        raise InputError(
            f"{path}: an origin of {farthest:.3g} mm in its header, expected less than {FARTHEST:.0e} mm; correct the "
            "header or its unit"
        )


def _format_of(path: Path) -> str:
    """Return the format of a path: ``"DICOM"``, ``"NIfTI"`` or ``"ITK"``."""
    if series_in_path(path) is not None:
        return "DICOM"
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        what = f"a broken link to {os.readlink(path)}" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {what}; correct the path or get the file") from None
    if stat.S_ISDIR(mode):
        return "DICOM"
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: a device or a pipe, expected a file")
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return "NIfTI"
    if name.endswith(ITK_SUFFIXES):
        return "ITK"
    if is_dicom(path):
        raise InputError(f"{path}: one file of a DICOM series; give the folder of the series, {path.parent}")
    raise InputError(f"{path}: unknown format, expected {', '.join(NIFTI_SUFFIXES + ITK_SUFFIXES)}")


def check_grid(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    """Check that a shape is ``(x, y, z)`` or ``(x, y, z, channel)``, and that the 4x4 affine is valid.

    Raises:
        InputError: the number of axes differs, an axis has fewer than 2 voxels, or the affine is not finite or not
            invertible.
    """
    if len(shape) not in (3, 4) or min(shape[:3]) < 2:
        raise InputError(f"{path}: shape {shape}, expected a volume with at least 2 voxels along each of 3 axes")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= FLAT * steps.prod():
        raise InputError(
            f"{path}: the affine {np.round(affine[:3], 3).tolist()} is not finite and invertible; correct the header"
        )
