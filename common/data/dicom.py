"""Read a folder of DICOM slices as one volume, or refuse slices that do not form a volume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, is_out_of_memory
from ..memory import check_memory
from .dicom_headers import Slice, has_pydicom, not_an_image, read_slices
from .dicom_pixels import check_decoder, decode, needs_pydicom
from .dicom_trees import files_of_series, is_dicom, series_in_path
from .itk_files import LPS_TO_RAS, has_itk, itk, itk_reason

UNEVEN = 0.15  # fraction of a step; a missing slice shifts others by 0.2, positions rounded to 0.1 mm by less
SAME_DIRECTION = 1e-3  # between direction cosines: 0.25 mm at the end of a row of 250 mm
DEEPEST = 4  # levels of sub-folders to search for a series: patient, study, series, images


def is_series(path: Path) -> bool:
    """Return whether this is a folder that contains DICOM files itself, or a series within a folder.

    A path of :func:`common.data.dicom_trees.series_path` names a series within a folder.
    Return False for a folder without read permission; reading it later raises the error.
    """
    if path.name.startswith("."):
        return False
    try:
        if series_in_path(path) is not None:
            return True
        return path.is_dir() and any(map(is_dicom, path.iterdir()))
    except PermissionError:
        return False


def series_below(folder: Path) -> Path | None:
    """Return the first series in the sub-folders of a folder, as an archive exports them, or None."""
    level = [folder]
    for _ in range(DEEPEST):
        level = sorted(path for parent in level for path in parent.iterdir() if path.is_dir())
        found = next(filter(is_series, level), None)
        if found is not None:
            return found
    return None


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the slices of a folder as a float32 array ``(x, y, z)`` and its 4x4 affine to RAS+ millimetres.

    Order and distance of the slices follow from ``ImagePositionPatient``, not from file names, instance numbers or
    ``SliceThickness``. Values are rescaled by slope and intercept; a CT is then in Hounsfield units. ``MONOCHROME1``
    only affects the display, so the values stay. x and y are column and row of the images; z runs along their normal.

    Raises:
        InputError: itk is not installed; a file is damaged or not an image; there are several series; an image has
            colours, several frames without positions, no position or a transfer syntax that no package decodes; slices
            differ in size, spacing or direction, share a position, have unequal steps or are shifted against each
            other; or the volume does not fit into memory.
    """
    slices = ordered_slices(folder)
    (columns, rows), count = slices[0].size[:2], len(slices)
    reading = f"reading {columns} x {rows} x {count} voxels"
    need = 8 * columns * rows * count  # float32, decoded and as an array
    check_memory(str(folder), reading, need, "check Rows and Columns in its headers, or use a machine with more memory")
    if any(map(needs_pydicom, slices)):
        return decode(slices, folder), series_affine(slices)
    try:
        # float, because slope and intercept may differ by slice, but ITK uses the type of the first slice for all
        image = itk.imread([str(s.path) for s in slices], itk.F)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{folder}: {reading} needs more memory than available; use a machine with more memory"
            ) from error
        raise InputError(
            f"{folder}: its images cannot be decoded ({itk_reason(error)}); copy them again, or convert them to NIfTI"
        ) from error
    array = itk.array_from_image(image).T
    for k, one in enumerate(slices):
        if one.ends is not None:  # GDCM inverted the stored values before it rescaled them
            np.subtract(_mirror(one.path, one.ends), array[:, :, k], out=array[:, :, k])
    return array, series_affine(slices)


def series_affine(slices: Sequence[Slice]) -> np.ndarray:
    """Return the 4x4 affine to RAS+ millimetres of the volume from the slices of :func:`ordered_slices`."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[0] * first.spacing[1]
    affine[:3, 1] = first.orientation[1] * first.spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def ordered_slices(folder: Path) -> list[Slice]:
    """Read the headers of a folder's slices and sort them in the stacking order of :func:`read_series`.

    Raises:
        InputError: see :func:`read_series`; pixels are not checked.
    """
    if not (has_itk and has_pydicom):
        raise InputError(
            f"{folder}: reading DICOM needs the packages itk and pydicom (pip install itk pydicom), or convert the "
            "series to NIfTI"
        )
    paths = _slices_in(folder) if series_in_path(folder) is None else files_of_series(folder)
    slices = [one for path in paths for one in read_slices(path)]
    _check_one_series(folder, slices)
    _check_one_scan(folder, slices)
    _check_same_plane(folder, slices)
    for one in slices:
        check_decoder(one)
    if len(slices) < 2:
        raise InputError(f"{folder}: a single DICOM image ({paths[0].name}), expected a series of at least 2 slices")
    normal = np.cross(*slices[0].orientation)
    slices.sort(key=lambda s: float(s.position @ normal))
    _check_even_stack(folder, slices, normal)
    return slices


def _slices_in(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder.

    Raises:
        InputError: there are none, or a file has a name like theirs and is not DICOM.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = [path for path in files if is_dicom(path)]
    if not paths:
        raise InputError(f"{folder}: no DICOM files in this folder; give the folder that contains the slices")
    named_alike = {re.sub(r"\d+", "0", path.name) for path in paths}
    for path in files:
        if path not in paths and re.sub(r"\d+", "0", path.name) in named_alike:
            raise not_an_image(path)
    return paths


def _mirror(path: Path, ends: int) -> np.float32:
    """Return the sum of a rescaled value and its rescaled inverted value."""
    reader = itk.GDCMImageIO.New(FileName=str(path))
    reader.ReadImageInformation()
    return np.float32(reader.GetRescaleSlope() * ends + 2 * reader.GetRescaleIntercept())


def _check_one_series(folder: Path, slices: Sequence[Slice]) -> None:
    series: dict[str, list[Slice]] = {}
    for one in slices:
        series.setdefault(one.series, []).append(one)
    if len(series) > 1:
        found = "; ".join(
            f"{group[0].modality or 'unknown modality'} '{group[0].description}', {len(group)} "
            f"image{'s' if len(group) > 1 else ''} such as {group[0].path.name}, {uid or 'no UID'}"
            for uid, group in series.items()
        )
        raise InputError(
            f"{folder}: {len(series)} DICOM series ({found}); put each into its own folder and "
            "remove localizers, dose reports and the like, or choose one in inference with --series NUMBER"
        )


def _check_one_scan(folder: Path, slices: Sequence[Slice]) -> None:
    """Check that slices of one series are of one patient, study, modality and frame of reference."""
    for keyword, entry in {
        "PatientID": "patient",
        "StudyInstanceUID": "study",
        "Modality": "modality",
        "FrameOfReferenceUID": "reference",
    }.items():
        found: dict[str, str] = {}
        for one in slices:
            found.setdefault(getattr(one, entry), one.path.name)
        if len(found) > 1:
            shown = " and ".join(f"{value or 'none'} in {name}" for value, name in list(found.items())[:2])
            raise InputError(
                f"{folder}: {len(found)} different {keyword} in its {len(slices)} slices ({shown}), expected 1; put "
                "the slices of each scan into their own folder, or export the series again"
            )


def _check_same_plane(folder: Path, slices: Sequence[Slice]) -> None:
    first = slices[0]
    for one in slices:
        name = one.path.name
        if one.components > 1:
            raise InputError(f"{folder}: {name} is a colour image, expected one number in each voxel; remove it")
        if one.size[2:] not in ((), (1,)):
            raise InputError(
                f"{folder}: {name} has {one.size[2]} frames, expected one slice in each file; convert it to NIfTI, "
                "for example with dcm2niix"
            )
        placed = all(np.isfinite(v).all() for v in (one.position, one.orientation, one.spacing))
        if not placed or one.spacing.min() <= 0:
            raise InputError(
                f"{folder}: {name} has no valid slice position (ImagePositionPatient, ImageOrientationPatient, "
                "PixelSpacing), such as a secondary capture; export the original series"
            )
        for what, same in {
            f"size ({_join(first.size[:2])} and {_join(one.size[:2])})": one.size[:2] == first.size[:2],
            f"pixel spacing ({_join(first.spacing)} and {_join(one.spacing)})": np.allclose(
                one.spacing, first.spacing, rtol=1e-3, atol=0
            ),
            f"direction ({_join(first.orientation.flat)} and {_join(one.orientation.flat)})": np.allclose(
                one.orientation, first.orientation, rtol=0, atol=SAME_DIRECTION
            ),
        }.items():
            if not same:
                raise InputError(
                    f"{folder}: {first.path.name} and {name} differ in {what}, expected the same in all slices; "
                    "remove the one that does not belong to the series, such as a localizer"
                )
    if not np.allclose(first.orientation @ first.orientation.T, np.eye(2), rtol=0, atol=1e-2):
        raise InputError(
            f"{folder}: ImageOrientationPatient {_join(first.orientation.flat)} is not a pair of unit vectors at right "
            "angles; correct the headers"
        )


def _check_even_stack(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    """Check that slices, sorted along ``normal``, have equal steps and are not shifted against each other."""
    places = np.array([s.position for s in slices])
    heights = places @ normal
    steps = np.diff(heights)
    doubled = np.flatnonzero(steps < 1e-3)
    if doubled.size:
        one, other = slices[doubled[0]], slices[doubled[0] + 1]
        raise InputError(
            f"{folder}: {doubled.size} of its {len(slices)} images at the position of another, such as "
            f"{one.path.name} and {other.path.name} at {_join(one.position)}; remove duplicate files, or put each "
            "echo, phase or time point into its own folder"
        )
    usual = float(np.median(steps))
    even = np.linspace(heights[0], heights[-1], len(heights))
    if np.abs(heights - even).max() > UNEVEN * (even[1] - even[0]):
        unusual = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual)
        if not unusual.size:  # a drift of many small differences
            unusual = np.array([np.abs(steps - usual).argmax()])
        found = "; ".join(
            f"{steps[i]:.4g} mm from {_join(slices[i].position)} to {_join(slices[i + 1].position)}"
            for i in unusual[:3]
        )
        more = f" and {unusual.size - 3} more" if unusual.size > 3 else ""
        raise InputError(
            f"{folder}: unequal steps between its {len(slices)} slices, mostly {usual:.4g} mm but {found}"
            f"{more}; find the missing slices, or resample the series to equal steps"
        )
    across = places - places[0] - np.outer(heights - heights[0], normal)
    shift = float(np.linalg.norm(across, axis=1).max())
    if shift > slices[0].spacing.min() / 2:
        raise InputError(
            f"{folder}: its slices are shifted against each other by up to {shift:.3g} mm, as with a tilted gantry; "
            "convert it to NIfTI with a tool that corrects it, for example dcm2niix"
        )


def _join(values: Sequence[float] | np.ndarray | np.flatiter) -> str:
    return ", ".join(f"{v:.6g}" for v in values)
