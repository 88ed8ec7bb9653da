"""List the scans of a folder, without the files that systems put beside them, and find broken links."""

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

# Besides hidden files: of macOS, Synology, Linux, Windows, QNAP; in lower case.
DEBRIS = (
    "__macosx", "@eadir", "#recycle", "#snapshot", "lost+found", "$recycle.bin", "recycler",
    "system volume information", "thumbs.db", "desktop.ini", "@recycle", "@recently-snapshot",
)  # fmt: skip


def entries(folder: Path) -> list[Path]:
    """List a folder in order, without hidden files and the debris of systems.

    Raises:
        InputError: this user may not read the folder, or it is not one.
    """
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in DEBRIS)
    except OSError as error:
        raise InputError(os_failure(error, str(folder))) from error


def is_scan(path: Path) -> bool:
    """Return whether this is an image file by its suffix, or a folder with DICOM files in it.

    A link with such a suffix that leads nowhere is one too: whoever uses it says so, see :func:`broken_link`.
    """
    try:
        if path.name.lower().endswith(NIFTI_SUFFIXES + ITK_SUFFIXES) and (path.is_file() or broken_link(path)):
            return not path.name.startswith(".")
        return is_series(path)
    except OSError:  # not this user's to read; as a folder it gets its line where it is listed
        return False


def scans_in(folder: Path) -> list[Path]:
    """List the scans of a folder in order; see :func:`entries`."""
    return [path for path in entries(folder) if is_scan(path)]


def scans_below(root: Path) -> list[Path]:
    """List the scans of a folder and of all folders below it, in order; see :func:`entries`."""
    return sorted(path for path in _walk(root, {root.resolve()}) if is_scan(path))


def broken_link(path: Path) -> str | None:
    """Return a line on a link that leads nowhere; None for every other path."""
    if not path.is_symlink() or path.exists():
        return None
    return f"{path}: a broken link to {os.readlink(path)}; fetch the file that it stands for, or remove the link"


def broken_links(path: Path) -> list[str]:
    """Return a line on each link that leads nowhere: of a scan itself, and of a folder's files."""
    return [line for one in (path, *(entries(path) if path.is_dir() else ())) if (line := broken_link(one))]


def channels_in_header(path: Path) -> int:
    """Return the length of the fourth axis of a NIfTI file; 1 of every other file, and of one that cannot be read."""
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return 1
    try:
        shape = nib.load(path).shape
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, zlib.error):
        return 1  # whoever reads its voxels says why
    return shape[3] if len(shape) > 3 else 1


def images_of_case(files: Sequence[Path], modalities: Sequence[str], where: str) -> str | list[str]:
    """Return the images among ``files`` in the order of ``modalities``; a single file is taken to hold them all.

    Raises:
        InputError: a modality is missing or there twice; several files, but not several modalities.
    """
    if len(files) == 1:
        return str(files[0])
    if len(modalities) < 2:
        found = ", ".join(f.name for f in files) or "none"
        raise InputError(f"{where}: {len(files)} scans ({found}), expected one; put each case into a folder of its own")
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
    """Log one warning for the scans beside a case's modalities that no case uses.

    Args:
        root: data set, for the message.
        scans: the scans found, without labels.
        images: of each case, its files.
        modalities: the channels of a case.
    """
    used = {path for image in images for path in ([image] if isinstance(image, str) else image)}
    unused = [path.name for path in scans if str(path) not in used]
    if unused:
        logger.warning(
            "%s: %d scans are left out, such as %s; a case takes %s",
            root, len(unused), unused[0], ", ".join(modalities),
        )  # fmt: skip


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield what lies below a folder; of linked folders each once, and none that a folder in ``seen`` holds anyway."""
    for path in entries(folder):
        yield path
        if path.is_dir():
            real = path.resolve()
            if path.is_symlink() and any(real.is_relative_to(other) for other in seen):
                continue
            if path.is_symlink():
                seen.add(real)
            yield from _walk(path, seen)
