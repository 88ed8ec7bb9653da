"""Name a DICOM series within a folder that holds others too, and list its files."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from .dicom_headers import not_an_image, read_identity

MARK = "SeriesInstanceUID="  # begins the last part of a path that names a series within a folder


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM by its suffix or its first bytes; the index file ``DICOMDIR`` does not count."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    if path.suffix.lower() in (".nii", ".gz"):  # a data set has many; opening each is slow
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_below(folder: Path, skipped: Path | None = None) -> list[Path]:
    """Return the DICOM files of a folder and of all folders below it, in order, without hidden files.

    Args:
        folder: folder to search; links to folders are not followed.
        skipped: folder to leave out, such as that of the results, resolved.

    Raises:
        OSError: the user may not read a folder or a file.
    """

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(root) / name).resolve() != skipped
        )
        found += [path for path in (Path(root) / name for name in sorted(files)) if is_dicom(path)]
    return found


def series_path(files: list[Path], uid: str, alone: bool) -> Path:
    """Return the path that names a series: its folder, or the folder with the UID of the series behind it.

    Args:
        files: files of the series.
        uid: ``SeriesInstanceUID``.
        alone: whether all files are in one folder without DICOM files of other series.
    """
    folder = Path(os.path.commonpath([file.parent for file in files]))
    return folder if alone else folder / f"{MARK}{uid}"


def series_in_path(path: Path) -> str | None:
    """Return the UID in a path that names a series within a folder, or None for another path."""
    if not path.name.startswith(MARK) or path.exists() or not path.parent.is_dir():
        return None
    return path.name.removeprefix(MARK)


def series_uid(path: Path) -> str | None:
    """Return the ``SeriesInstanceUID`` of a scan; None if it is not DICOM or has none."""
    if (uid := series_in_path(path)) is not None:
        return uid or None
    first = first_of_series(path)
    return None if first is None else read_identity(first).series or None


def first_of_series(path: Path) -> Path | None:
    """Return the first file of a scan that is a DICOM series, or None for another scan."""
    if series_in_path(path) is not None:
        return files_of_series(path)[0]
    return next(filter(is_dicom, sorted(path.iterdir())), None) if path.is_dir() else None


def files_of_series(path: Path) -> list[Path]:
    """Return the files of a series: those that :func:`series_path` names, or all files of a folder.

    Raises:
        InputError: the folder has no file of the series, or a damaged file, which may belong to the series.
    """
    uid = series_in_path(path)
    if uid is None:
        return sorted(file for file in path.iterdir() if file.is_file())
    files = []
    for file in dicom_below(path.parent):
        found = read_identity(file).series
        if uid and not found:  # every image has one, so the file was cut
            raise not_an_image(file)
        if found == uid:
            files.append(file)
    if not files:
        raise InputError(f"{path.parent}: no file of the series {uid}; list its series with python -m common series")
    return files
