"""Reading a folder of DICOM slices as one volume, and refusing it where they make none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.utils import optional_import

from ..errors import InputError

itk, has_itk = optional_import("itk", allow_namespace_pkg=True)

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
UNEVEN = 0.15  # of a step; below the 0.2 by which a missing slice moves others, above positions rounded to 0.1 mm
SAME_DIRECTION = 1e-3  # between direction cosines: 0.25 mm at the end of a row of 250 mm


class Slice(NamedTuple):
    """What the header of one file says."""

    path: Path
    series: str
    description: str
    modality: str
    components: int
    size: tuple[int, ...]  # columns, rows, frames
    position: np.ndarray  # of the first voxel's centre, LPS, mm
    orientation: np.ndarray  # (2, 3), the directions in which columns and rows count up, LPS
    spacing: np.ndarray  # between rows, between columns, mm


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or its mark; the index of a medium, ``DICOMDIR``, does not count."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix.lower() in (".nii", ".gz"):  # a data set has many; no need to open each
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_series(path: Path) -> bool:
    """Whether this is a folder with DICOM files in it; not below it."""
    return path.is_dir() and not path.name.startswith(".") and any(map(is_dicom, path.iterdir()))


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The slices of a folder as a float32 array ``(x, y, z)`` and its 4x4 affine to RAS+ millimetres.

    The order and the distance of the slices are those of their positions (``ImagePositionPatient``), not of the
    files' names, their numbers or ``SliceThickness``. Values are rescaled by slope and intercept: of a CT, Hounsfield
    units. x and y are column and row of the images, z goes along their normal.

    Raises:
        InputError: no itk; a file that is no image or is damaged; several series; colour, several frames in a file, no
            positions; slices of different size, spacing or direction, at one place, at unequal steps or shifted against
            each other.
    """
    slices = ordered_slices(folder)
    try:
        # float: slope and intercept may differ from slice to slice, and the type of the first holds for all
        image = itk.imread([str(s.path) for s in slices], itk.F)
    except RuntimeError as error:
        raise InputError(
            f"{folder}: its images cannot be decoded ({_last_line(error)}); convert it to NIfTI"
        ) from error
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[0] * first.spacing[1]
    affine[:3, 1] = first.orientation[1] * first.spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return itk.array_from_image(image).T, affine


def ordered_slices(folder: Path) -> list[Slice]:
    """The headers of a folder's slices in the order in which :func:`read_series` stacks them.

    Raises:
        InputError: as of :func:`read_series`, but for what only the pixels tell.
    """
    if not has_itk:
        raise InputError(
            f"{folder}: reading DICOM needs the package itk (pip install itk), or convert the series to NIfTI"
        )
    paths = sorted(path for path in folder.iterdir() if is_dicom(path))
    if not paths:
        raise InputError(f"{folder}: no DICOM files in this folder; give the folder that holds the slices themselves")
    slices = [_read_header(path) for path in paths]
    _check_one_series(folder, slices)
    _check_same_plane(folder, slices)
    if len(slices) < 2:
        raise InputError(f"{folder}: a single DICOM image ({paths[0].name}), expected a series of at least 2 slices")
    normal = np.cross(*slices[0].orientation)
    slices.sort(key=lambda s: float(s.position @ normal))
    _check_even_stack(folder, slices, normal)
    return slices


def _read_header(path: Path) -> Slice:
    reader = itk.GDCMImageIO.New(FileName=str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{path}: no DICOM image, or damaged; copy it again, or take it out of the folder if it is a report, "
            "a structure set or the like"
        ) from error
    tags = reader.GetMetaDataDictionary()

    def text(tag: str) -> str:
        return str(tags[tag]).strip(" \0") if tags.HasKey(tag) else ""

    def numbers(tag: str, count: int) -> np.ndarray:
        try:
            values = np.array([float(v) for v in text(tag).split("\\")])
        except ValueError:
            values = np.array([])
        return values if values.size == count and np.isfinite(values).all() else np.full(count, np.nan)

    return Slice(
        path=path,
        series=text("0020|000e"),
        description=text("0008|103e"),
        modality=text("0008|0060"),
        components=reader.GetNumberOfComponents(),
        size=tuple(reader.GetDimensions(i) for i in range(reader.GetNumberOfDimensions())),
        position=numbers("0020|0032", 3),
        orientation=numbers("0020|0037", 6).reshape(2, 3),
        spacing=numbers("0028|0030", 2),
    )


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
            f"{folder}: {len(series)} DICOM series ({found}); put each into a folder of its own and leave out "
            "localizers, dose reports and the like"
        )


def _check_same_plane(folder: Path, slices: Sequence[Slice]) -> None:
    first = slices[0]
    for one in slices:
        name = one.path.name
        if one.components > 1:
            raise InputError(f"{folder}: {name} is a colour image, expected one number in each voxel; take it out")
        if one.size[2:] not in ((), (1,)):
            raise InputError(
                f"{folder}: {name} has {one.size[2]} frames, expected one slice in each file; convert it to NIfTI, "
                "for example with dcm2niix"
            )
        if not all(np.isfinite(v).all() for v in (one.position, one.orientation, one.spacing)):
            raise InputError(
                f"{folder}: {name} does not say where its slice lies (ImagePositionPatient, ImageOrientationPatient, "
                "PixelSpacing); a secondary capture is no volume, export the original series"
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
                    f"{folder}: {first.path.name} and {name} are of different {what}, so they make no volume; "
                    "take out the one that does not belong, such as a localizer"
                )
    if not np.allclose(first.orientation @ first.orientation.T, np.eye(2), rtol=0, atol=1e-2):
        raise InputError(
            f"{folder}: ImageOrientationPatient {_join(first.orientation.flat)} is no pair of unit vectors at right "
            "angles; mend the headers"
        )


def _check_even_stack(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> None:
    """``slices`` in the order of their places along ``normal``."""
    places = np.array([s.position for s in slices])
    heights = places @ normal
    steps = np.diff(heights)
    doubled = np.flatnonzero(steps < 1e-3)
    if doubled.size:
        one, other = slices[doubled[0]], slices[doubled[0] + 1]
        raise InputError(
            f"{folder}: {doubled.size} of its {len(slices)} images at the place of another, such as "
            f"{one.path.name} and {other.path.name} at {_join(one.position)}; a file twice, or "
            "several echoes, phases or times in one series: one folder for each"
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
            f"{folder}: the steps between its {len(slices)} slices are not equal, mostly {usual:.4g} mm but {found}"
            f"{more}; find the missing slices, or resample the series to equal steps"
        )
    across = places - places[0] - np.outer(heights - heights[0], normal)
    shift = float(np.linalg.norm(across, axis=1).max())
    if shift > slices[0].spacing.min() / 2:
        raise InputError(
            f"{folder}: its slices are shifted against each other by up to {shift:.3g} mm, as by a tilted gantry; "
            "convert it to NIfTI with a tool that corrects it, for example dcm2niix"
        )


def _join(values: Sequence[float] | np.ndarray | np.flatiter) -> str:
    return ", ".join(f"{v:.6g}" for v in values)


def _last_line(error: BaseException) -> str:
    """ITK's messages begin with the place in its source."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
