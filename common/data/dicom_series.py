"""List the DICOM series of an export, and judge which of them are volumes that a network can use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError, os_failure
from .dicom_headers import Identity, not_an_image, read_identity
from .dicom_trees import dicom_below, series_path
from .volumes import read_grid

DAMAGED_FILE = "damaged: "  # takes the place of a UID
AXIAL = 0.9  # least cosine between the normal of the slices and the long axis of the body: tilted by 25 degrees


class Series(NamedTuple):
    """Store a series of an export and its verdict.

    Args:
        path: path that :func:`common.data.volumes.read_volume` reads; see :func:`common.data.dicom_trees.series_path`.
        files: number of files.
        about: entries of the headers.
        shape: shape ``(x, y, z)`` of the volume; empty without a usable volume.
        spacing: voxel size in mm; empty without a usable volume.
        axial: whether the slices are across the body.
        reason: why a network cannot use it; empty for a volume.
    """

    path: Path
    files: int
    about: Identity
    shape: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    axial: bool = False
    reason: str = ""

    @property
    def label(self) -> str:
        """Return number and description, for messages."""
        return f"{self.about.number or 'no number'} '{self.about.description}'"


def find_series(root: str | Path, skipped: Path | None = None) -> list[list[Series]]:
    """Return the series of each study in a tree, ordered by number.

    Args:
        root: folder at any level of an export; or a file in it such as ``DICOMDIR``, which means its folder.
        skipped: folder to leave out.

    Raises:
        InputError: the tree does not exist, has no DICOM files, or the user may not read it.
    """
    folder = Path(root)
    if not folder.exists():
        raise InputError(f"{folder}: no such file or folder; give the folder of the export")
    folder = folder if folder.is_dir() else folder.parent
    try:
        files = dicom_below(folder, skipped)
        groups: dict[tuple[str, ...], list[tuple[Path, Identity]]] = {}
        for file in files:
            try:
                about = read_identity(file)
                key: tuple[str, ...] = (about.patient, about.study, about.series or str(file.parent))
            except InputError:
                about, key = Identity(*[""] * len(Identity._fields)), ("", "", f"{DAMAGED_FILE}{file}")
            groups.setdefault(key, []).append((file, about))
    except OSError as error:
        raise InputError(os_failure(error, str(folder))) from error
    if not groups:
        raise InputError(f"{folder}: no DICOM files in this folder or below; give the folder of the export")
    uids: dict[Path, set[str]] = {}
    for key, group in groups.items():
        for file, _ in group:
            uids.setdefault(file.parent, set()).add(key[-1])
    studies: dict[tuple[str, ...], list[Series]] = {}
    for key, group in groups.items():
        paths, about = [file for file, _ in group], group[0][1]
        parents = {path.parent for path in paths}
        alone = len(parents) == 1 and len(uids[paths[0].parent]) == 1
        one = Series(series_path(paths, about.series, alone), len(group), about)
        if key[-1].startswith(DAMAGED_FILE):
            one = one._replace(path=paths[0], reason=str(not_an_image(paths[0])).removeprefix(f"{paths[0]}: "))
        studies.setdefault(key[:-1], []).append(_judged(one))
    return [sorted(study, key=_place) for _, study in sorted(studies.items())]


def fits(series: Series, modality: str | None) -> bool:
    """Return whether a network of a DICOM modality, such as CT, can use a series; None means any modality."""
    return not series.reason and modality in (None, series.about.modality)


def best_of(study: Sequence[Series], modality: str | None) -> Series | None:
    """Return the thinnest axial volume of a modality; of equal ones an original one, then the one with more slices."""
    axial = [one for one in study if one.axial and fits(one, modality)]
    return min(axial, key=_preference, default=None)


def _preference(one: Series) -> tuple[float, bool, int, tuple]:
    return round(one.spacing[2], 2), "DERIVED" in one.about.kind, -one.shape[2], _place(one)


def _place(one: Series) -> tuple[int, str, str]:
    number = one.about.number
    return (int(number) if re.fullmatch(r"[+-]?\d{1,12}", number) else 0), one.about.description, one.about.series


def _judged(one: Series) -> Series:
    """Return a series with its grid, or with the reason why the series is not a volume."""
    if one.reason:
        return one
    if "LOCALIZER" in one.about.kind.upper():
        return one._replace(reason="a localizer")
    try:
        shape, affine = read_grid(one.path)
    except InputError as error:
        return one._replace(reason=str(error).removeprefix(f"{one.path}: "))
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(affine[:3, 0], affine[:3, 1]) / (steps[0] * steps[1])
    return one._replace(shape=tuple(shape), spacing=tuple(map(float, steps)), axial=bool(abs(normal[2]) > AXIAL))
