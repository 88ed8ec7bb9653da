"""Join volumes as channels of one file, and split them again, for programs that take one file for each case."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..errors import InputError
from .names import modality_of, stem
from .nifti import read_description
from .nifti_writer import write_nifti
from .volume_reader import read_aligned
from .volumes import NIFTI_SUFFIXES, read_volume

MARK = "channels: "  # prefix of the names in the header, to tell them from other descriptions
DESCRIPTION = 79  # characters of NIfTI's field descrip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")  # allowed in a file name on every system


def stack_volumes(paths: Sequence[str | Path], out: str | Path, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Write single-channel volumes as one 4-D NIfTI file, with the channels along the fourth axis.

    The file has the grid of the first volume. The others are resampled as in ``VolumeReader``, which reads the same
    array from ``out`` as from the separate files. If all volumes have integers and none is resampled, the voxels get
    the smallest integer type for all of them. Otherwise, and for DICOM, they are float32.

    Args:
        paths: NIfTI, MetaImage or NRRD files, or folders of one DICOM series, in the order of the channels.
        out: file to write, ``.nii`` or ``.nii.gz``.
        names: names of the channels for the header's ``descrip``. Default: the modalities in the file names, or the
            file names.

    Returns:
        names of the channels.

    Raises:
        InputError: there are fewer than two volumes; the names are not distinct, not valid or of another number;
            ``out`` exists or is not a NIfTI name; a volume cannot be read, has several channels or does not overlap the
            first; or no integer type can store all voxels, as for uint64 and int64.
    """
    files, out = [Path(path) for path in paths], Path(out)
    if len(files) < 2:
        found = str(files[0]) if files else "none"
        raise InputError(f"{found}: expected at least two volumes in the order of the network's inputs")
    if not out.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"--out {out}: expected a file name that ends with {' or '.join(NIFTI_SUFFIXES)}")
    _check_new([out])
    named = _check_names(names or _names_of(files), len(files))
    description = MARK + ",".join(named)
    if len(description) > DESCRIPTION:
        raise InputError(
            f"channels {', '.join(named)}: {len(description) - len(MARK)} characters with the commas, expected at most "
            f"{DESCRIPTION - len(MARK)} for the file's header; give shorter names with --names A,B,..."
        )
    volumes, affine = read_aligned(files, named, integers=True)
    common = np.result_type(*(volume.dtype for volume in volumes))
    kinds = {volume.dtype.kind for volume in volumes}
    if common.kind == "f" and kinds == {"i", "u"}:
        of = ", ".join(f"{file.name} {volume.dtype}" for file, volume in zip(files, volumes))
        raise InputError(
            f"{of}: no integer type for all of them, and float would change values; convert unsigned files to int64"
        )
    array = np.stack(volumes, axis=3, dtype=common if common.kind in "iu" else np.float32)
    _write(out, array, affine, description)
    return named


def unstack_volume(path: str | Path, out: str | Path, names: Sequence[str] = ()) -> list[Path]:
    """Write each channel of a 4-D file as a separate file, ``CASE_NAME.nii.gz``.

    Channels that :func:`stack_volumes` did not resample get back their values and, within half a voxel, their affine.
    The voxels keep the type of the 4-D file, or are float32 if it has a slope or intercept.

    Args:
        path: 4-D file; its name without suffix is ``CASE``.
        out: folder to write to.
        names: names of the channels. Default: those that :func:`stack_volumes` wrote to the header, or ``0000``,
            ``0001``, ...

    Returns:
        paths of the written files.

    Raises:
        InputError: the file has a single channel or cannot be read, the names are not distinct or of another number, or
            a file exists.
    """
    path, out = Path(path), Path(out)
    array, affine = read_volume(path, integers=True)
    if array.ndim != 4:
        raise InputError(f"{path}: one channel, expected a 4-D file with several channels along its fourth axis")
    named = _check_names(names or _names_in(path, array.shape[3]), array.shape[3])
    files = [out / f"{stem(path)}_{name}.nii.gz" for name in named]
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder")
    _check_new(files)
    for i, file in enumerate(files):
        _write(file, array[..., i], affine)
    return files


def _write(path: Path, array: np.ndarray, affine: np.ndarray, description: str = "") -> None:
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)  # nibabel requires the dtype for 64-bit integers
    image.header["descrip"] = description
    write_nifti(path, image, affine)


def _names_of(files: Sequence[Path]) -> list[str]:
    stems = [stem(file.absolute()) for file in files]
    modalities = [modality for name in stems if (modality := modality_of(name)[0])]
    return modalities if len(set(modalities)) == len(files) else stems


def _names_in(path: Path, count: int) -> list[str]:
    text = read_description(path) if path.name.lower().endswith(NIFTI_SUFFIXES) else ""
    names = text.removeprefix(MARK).split(",") if text.startswith(MARK) else []
    if len(names) == count and all(map(NAME.fullmatch, names)):
        return names
    return [f"{i:04d}" for i in range(count)]


def _check_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    if len(names) != count:
        raise InputError(f"--names {','.join(names)}: expected {count}, one for each channel, found {len(names)}")
    if len({name.lower() for name in names}) < count:
        raise InputError(
            f"channels {', '.join(names)}: two have the same name; give distinct names with --names A,B,..."
        )
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(
                f"channel '{name}': expected a name of letters, digits, blanks and ._+-, the first a letter or digit; "
                "give others with --names A,B,..."
            )
    return tuple(names)


def _check_new(files: Sequence[Path]) -> None:
    there = [file for file in files if os.path.lexists(file)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}{more}: already exists and is not overwritten; choose another --out")
