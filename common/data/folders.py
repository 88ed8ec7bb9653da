"""List the scans of a folder without files of operating systems, and find broken links."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from ..errors import InputError, os_failure
from .dicom import is_series
from .names import modality_of, stem
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

logger = logging.getLogger(__name__)

# Files and folders of macOS, Synology, Linux, Windows and QNAP that are not hidden; in lower case.
SYSTEM_FILES = (
    "__macosx", "@eadir", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "recycler",
    "system volume information", "thumbs.db", "desktop.ini", "@recycle", "@recently-snapshot",
)  # fmt: skip

# Files of volumes and archives that are not read; in lower case.
OTHER_FORMATS = (
    ".img", ".hdr", ".img.gz", ".hdr.gz", ".mgz", ".mgh", ".mnc", ".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip",
    ".dcm.gz", ".gipl", ".gipl.gz", ".vtk", ".par", ".npy", ".npz", ".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz",
)  # fmt: skip


def entries(folder: Path) -> list[Path]:
    """List a folder in order, without hidden files and files of the operating system.

    Raises:
        InputError: the path is not a folder, or the user may not read it.
    """
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in SYSTEM_FILES)
    except OSError as error:
        raise InputError(os_failure(error, str(folder))) from error


def is_scan(path: Path) -> bool:
    """Return whether a path is an image file by its suffix, or a folder that contains DICOM files.

    A broken link or a pipe with such a suffix counts as a scan, so that reading it raises an error.
    """
    try:
        if path.name.lower().endswith(NIFTI_SUFFIXES + ITK_SUFFIXES) and os.path.lexists(path) and not path.is_dir():
            return not path.name.startswith(".")
        return is_series(path)
    except OSError:  # permission denied; listing the folder reports it
        return False


def scans_in(folder: Path) -> list[Path]:
    """List the scans of a folder in order; see :func:`entries`."""
    return [path for path in entries(folder) if is_scan(path)]


def scans_below(root: Path) -> list[Path]:
    """List the scans of a folder and of all folders below it, in order; see :func:`entries`."""
    return sorted(path for path in _walk(root, {root.resolve()}) if is_scan(path))


def others_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder that may be scans in a format or an archive that is not read."""
    return [path.name for path in entries(folder) if path.name.lower().endswith(OTHER_FORMATS) and not path.is_dir()]


def broken_link(path: Path) -> str | None:
    """Return the error message for a broken link, or None for every other path."""
    if not path.is_symlink() or path.exists():
        return None
    return f"{path}: a broken link to {os.readlink(path)}; get the file, or remove the link"


def broken_links(path: Path) -> list[str]:
    """Return the error messages for broken links: the scan itself, or files in its folder."""
    return [line for one in (path, *(entries(path) if path.is_dir() else ())) if (line := broken_link(one))]


def channels_in_header(path: Path) -> int:
    """Return the length of the fourth axis of a NIfTI file; 1 for other files and for damaged ones."""
    if not path.name.lower().endswith(NIFTI_SUFFIXES) or not path.is_file():
        return 1
    try:
        shape = nib.load(path).shape
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, zlib.error):
        return 1  # reading its voxels reports the reason
    return shape[3] if len(shape) > 3 else 1


def images_of_case(files: Sequence[Path], modalities: Sequence[str], where: str) -> str | list[str]:
    """Return the images among ``files`` in the order of ``modalities``; a single file counts as all modalities.

    Raises:
        InputError: a modality has no file or several, or there are several files for one modality.
    """
    if len(files) == 1:
        return str(files[0])
    if len(modalities) < 2:
        found = ", ".join(f.name for f in files) or "none"
        raise InputError(f"{where}: {len(files)} scans ({found}), expected one; put each case into its own folder")
    chosen = []
    for modality in modalities:
        matches = [f for f in files if modality_of(stem(f), modalities)[0] == modality]
        if len(matches) != 1:
            found = ", ".join(f.name for f in (matches or files))
            what = f"{len(matches)} files for {modality}" if matches else f"no {modality}"
            raise InputError(
                f"{where}: {what} among {found}; name one file for each of {', '.join(modalities)}, "
                f"for example {modality} as ..._{modality}.nii.gz"
            )
        chosen.append(str(matches[0]))
    return chosen


def warn_of_unused(
    root: Path, scans: Sequence[Path], images: Sequence[str | list[str]], modalities: Sequence[str]
) -> None:
    """Log one warning about scans that no case uses, such as files of another modality.

    Args:
        root: folder of the data set, for the message.
        scans: scans found, without labels.
        images: image file or files of each case.
        modalities: channels of a case.
    """
    used = {path for image in images for path in ([image] if isinstance(image, str) else image)}
    unused = [path.name for path in scans if str(path) not in used]
    if unused:
        logger.warning(
            "%s: %d scans are ignored, such as %s; a case uses %s",
            root, len(unused), unused[0], ", ".join(modalities),
        )  # fmt: skip


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield all paths below a folder; follow each linked folder once, unless it lies inside a folder in ``seen``."""
    for path in entries(folder):
        yield path
        if path.is_dir():
            real = path.resolve()
            if path.is_symlink() and any(real.is_relative_to(other) for other in seen):
                continue
            if path.is_symlink():
                seen.add(real)
            yield from _walk(path, seen)
