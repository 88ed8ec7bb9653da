"""Read volumes and check them."""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import SpatialResample

from ..errors import InputError, os_failure
from ..geometry import check_voxel_size, grid_difference, turn_onto
from .dicom import ordered_slices, read_series, series_affine
from .dicom_headers import read_identity
from .dicom_trees import first_of_series, is_dicom, series_in_path
from .itk_files import SUFFIXES as ITK_SUFFIXES
from .itk_files import read_itk, read_itk_header
from .nifti import SUFFIXES as NIFTI_SUFFIXES
from .nifti import read_nifti, read_nifti_header

FLAT = 1e-3  # volume of a voxel, relative to a box with the same edges, below which its axes lie in a plane

logger = logging.getLogger(__name__)


class VolumeReader(ImageReader):
    """Read one volume with known channels, for MONAI's ``LoadImage``.

    The channels are one file each, in the order of ``channels``, or one file with a fourth axis. Files on other grids
    than the first one's are resampled onto it, with a warning; see :func:`common.geometry.grid_difference`. In an
    image, NaN and infinite voxels become the smallest finite value, with a warning. In a label map, they are an error.
    The array is float32: ``(x, y, z)`` for one channel, ``(channel, x, y, z)`` for several. The affine maps voxels to
    RAS+ millimetres.

    NIfTI is read with nibabel. MetaImage, NRRD and DICOM need the optional package ``itk``. A folder with the slices of
    one DICOM series counts as one file.

    Args:
        channels: names of the channels, for example ``["T1", "T2", "CET1"]``.
        allow_constant: whether the volume is a label map. A label map may have a single value, as for a case without
            lesion; its NaN and infinite voxels are errors.

    Raises:
        InputError: a file is missing, damaged, constant, not a 3-D volume of real numbers or without a valid affine;
            the number of channels differs; the files do not overlap in space; a label map is not finite; or the slices
            in a folder do not form a volume, see :func:`~common.data.dicom.read_series`.
    """

    def __init__(self, channels: Sequence[str] = ("image",), allow_constant: bool = False) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.allow_constant = allow_constant

    def verify_suffix(self, filename: Sequence[str | os.PathLike] | str | os.PathLike) -> bool:
        return True

    def read(self, data: Sequence[str | os.PathLike] | str | os.PathLike, **kwargs: object) -> list[Path]:
        """Return the paths; ``get_data`` raises errors, because after one here ``LoadImage`` tries other readers."""
        return [Path(p) for p in ([data] if isinstance(data, (str, os.PathLike)) else data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        names = ", ".join(self.channels)
        if len(img) not in (1, len(self.channels)):
            found = ", ".join(p.name for p in img)
            several = f"one for each of {names}, in this order"
            expected = several if len(self.channels) > 1 else f"one file of {names}"
            raise InputError(f"{img[0].parent}: {len(img)} files ({found}), expected {expected}")
        if len(img) > 1:
            volumes, affine = read_aligned(img, self.channels)
            array = np.stack(volumes)
        else:
            array, affine = read_volume(img[0], labels=self.allow_constant)
            if array.ndim == 4:
                array = np.moveaxis(array, 3, 0)
        count = array.shape[0] if array.ndim == 4 else 1
        if count != len(self.channels):
            fix = "give a 3-D file; `python -m common unstack` writes one for each channel"
            if len(self.channels) > 1:
                fix = "give one file for each, or one 4-D file with the channels along its fourth axis in this order"
            raise InputError(
                f"{img[0]}: {count} channel{'s' if count > 1 else ''}, expected {len(self.channels)} ({names}); {fix}"
            )
        if count == 1 and array.ndim == 4:
            array = array[0]
        for name, channel in zip(self.channels, array if array.ndim == 4 else array[None]):
            if not self.allow_constant and channel.min() == channel.max():
                raise InputError(
                    f"{img[min(self.channels.index(name), len(img) - 1)]}: every voxel of {name} is {channel.flat[0]:g}"
                )
        meta = {
            "affine": affine,
            "original_affine": affine.copy(),
            "spatial_shape": np.asarray(array.shape[-3:]),
            "original_channel_dim": 0 if array.ndim == 4 else float("nan"),
            "space": "RAS",
            "source": str(img[0]),  # file that defines the grid; a data set may change MONAI's filename_or_obj
        }
        return array, meta


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
        InputError: see :class:`VolumeReader`.
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


def coverage(shape: Sequence[int], affine: np.ndarray, onto_shape: Sequence[int], onto_affine: np.ndarray) -> float:
    """Return the fraction of a grid that a volume covers, 0 to 1, estimated from 16 points along each axis.

    Args:
        shape: shape of the volume, ``(x, y, z)``.
        affine: affine of the volume, 4x4 to millimetres.
        onto_shape: shape of the grid, ``(x, y, z)``.
        onto_affine: affine of the grid, 4x4 to millimetres.
    """
    steps = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 16) for n in onto_shape), indexing="ij")).reshape(3, -1)
    there = np.linalg.inv(affine) @ onto_affine @ np.vstack([steps, np.ones(steps.shape[1])])
    inside = [(there[i] >= -0.5) & (there[i] <= shape[i] - 0.5) for i in range(3)]
    return float(np.all(inside, axis=0).mean())


def read_aligned(
    paths: Sequence[Path], names: Sequence[str], integers: bool = False
) -> tuple[list[np.ndarray], np.ndarray]:
    """Read single-channel files as arrays ``(x, y, z)`` on the grid of the first; return the arrays and its affine.

    Axes in another order or direction are permuted and flipped to those of the first file. Files on another grid are
    resampled to float32, with a warning.

    Args:
        paths: files, or folders of DICOM slices.
        names: names of the channels, for messages.
        integers: see :func:`read_volume`.

    Raises:
        InputError: see :func:`read_volume`; or a file has several channels, or does not overlap the first in space.
    """
    _check_one_patient(paths, names)
    volumes = [read_volume(path, integers) for path in paths]
    for path, (volume, _) in zip(paths, volumes):
        if volume.ndim != 3:
            raise InputError(
                f"{path}: {volume.shape[3]} channels, expected one, because each of {', '.join(names)} has its own "
                "file; `python -m common unstack` writes a file for each channel"
            )
    first, affine = volumes[0]
    moved = [_resample(p, v, a, paths[0], first.shape, affine) for p, (v, a) in zip(paths[1:], volumes[1:])]
    aligned = [first, *moved]
    for i, j in itertools.combinations(range(len(aligned)), 2):
        if np.array_equal(aligned[i], aligned[j]):
            logger.warning(
                "%s: the same voxels as %s; expected different ones for %s and %s, so check the files",
                paths[j], paths[i].name, names[i], names[j],
            )  # fmt: skip
    return aligned, affine


def _check_one_patient(paths: Sequence[Path], names: Sequence[str]) -> None:
    """Check that the DICOM series among the files are of one patient; warn if their positions are not comparable.

    Raises:
        InputError: two series name different patients.
    """
    about = {}
    for path, name in zip(paths, names):
        if (first := first_of_series(path)) is not None:
            about[name] = read_identity(first)
    for name, other in itertools.combinations(about, 2):
        one, two = about[name], about[other]
        if one.patient and two.patient and one.patient != two.patient:
            raise InputError(
                f"{paths[0].parent}: {name} is of patient {one.patient}, but {other} of {two.patient}; expected series "
                "of one patient, so give each patient its own folder"
            )
        if one.reference and two.reference and one.reference != two.reference:
            logger.warning(
                "%s: %s and %s have different frames of reference, so their positions may not fit each other; check "
                "the result, or register them",
                paths[0].parent, name, other,
            )  # fmt: skip


def _resample(
    path: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    onto_path: Path,
    onto_shape: tuple[int, ...],
    onto_affine: np.ndarray,
) -> np.ndarray:
    """Resample a volume onto the grid of another file as float32; fill voxels outside with its smallest value.

    A volume on the same grid, apart from the order and direction of its axes, keeps its values and type.
    """
    turned, turned_affine = turn_onto(volume, affine, onto_affine)
    difference = grid_difference(turned.shape, turned_affine, onto_shape, onto_affine)
    if not difference:
        return turned
    covered = coverage(volume.shape, affine, onto_shape, onto_affine)
    if covered == 0:
        raise InputError(
            f"{path}: does not overlap {onto_path} in space; give files of the same scan, or correct the headers"
        )
    logger.warning(
        "%s: another grid than %s; resampled onto it (it covers %.0f %% of it): %s",
        path, onto_path.name, 100 * covered, difference,
    )  # fmt: skip
    volume = np.asarray(volume, dtype=np.float32)
    lowest = volume.min()
    resampled = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=np.float32)(
        MetaTensor(volume[None] - lowest, affine=affine), dst_affine=onto_affine, spatial_size=onto_shape
    )
    return np.asarray(resampled[0]) + lowest
