"""Read the channels of a case as one volume on one grid."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from monai.data.image_reader import ImageReader
from monai.transforms import SpatialResample

from ..errors import InputError
from ..geometry import grid_difference, turn_onto
from .dicom_headers import read_identity
from .dicom_trees import first_of_series
from .volumes import read_volume

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
