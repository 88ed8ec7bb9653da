"""Zip files: the same bytes from the same content, and nothing outside of the folder they are unpacked to."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..files import whole_file
from ..memory import size

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
MOST_EXPANDED = 20  # bytes that a byte of an archive may unpack to; code packs to a fifth, weights hardly at all
ALWAYS_FITS = 100_000_000  # bytes that any archive may unpack to


def write_zip(path: str | Path, content: Mapping[str, bytes | Path], compression: int = zipfile.ZIP_DEFLATED) -> None:
    """A zip whose bytes depend on its content alone, not on dates, permissions or the order of a folder's files.

    Args:
        path: the file, written whole or not at all.
        content: name in the archive to bytes, or to the file that holds them.
        compression: of ``zipfile``.
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", compression) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type = compression
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data if isinstance(data, bytes) else data.read_bytes())


def unpack_zip(path: Path, folder: Path) -> Path:
    """Unpack a packed bundle.

    Returns:
        its one top folder.

    Raises:
        InputError: not a zip; damaged; a name that leaves the folder; a link; a name twice; not one top folder; far
            more bytes than its own, or than the disk has room for.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = check_expansion(path, archive)
            if unpacked > (free := shutil.disk_usage(folder.parent).free):
                raise InputError(f"{path}: unpacks to {size(unpacked)}, but {size(free)} are free at {folder}")
            names = archive.namelist()
            for entry in archive.infolist():
                _check_entry(path, entry)
            if len({name.lower() for name in names}) < len(names):
                raise InputError(f"{path}: has two files of one name; get it again from its source")
            tops = {PurePosixPath(name).parts[0] for name in names}
            if len(tops) != 1:
                raise InputError(f"{path}: holds {', '.join(sorted(tops)) or 'nothing'}, expected one folder")
            archive.extractall(folder)  # also compares check sums
    except InputError:
        raise
    except Exception as error:  # zipfile has no one error for what is damaged, encrypted or compressed in another way
        raise InputError(f"{path}: not a complete zip file ({error}); get it again from its source") from error
    return folder / tops.pop()


def check_expansion(path: Path, archive: zipfile.ZipFile) -> int:
    """Check that an archive unpacks to no more than a package could hold, from its index alone.

    ``zipfile`` unpacks no more of a file than the index says.

    Returns:
        the bytes that it unpacks to.

    Raises:
        InputError: it unpacks to far more bytes than it has.
    """
    unpacked, own = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if unpacked > max(MOST_EXPANDED * own, ALWAYS_FITS):
        raise InputError(
            f"{path}: its {size(own)} unpack to {size(unpacked)}, expected at most {MOST_EXPANDED} times as much; "
            "do not use it"
        )
    return unpacked


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    if leaves_folder(entry.filename):
        raise InputError(f"{path}: its file {entry.filename} would be written outside of the folder; do not use it")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{path}: its file {entry.filename} is a link, expected plain files; do not use it")


def leaves_folder(name: str) -> bool:
    """Whether a relative path in a list or an archive would name something outside, on any system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0]


def strip_debugging(path: Path) -> None:
    """Take out of a TorchScript file what names source files of the machine that wrote it.

    That is the line numbers of its code, and an identity computed from them; neither is needed for loading.
    """
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith((".debug_pkl", ".data/serialization_id"))]
        content = {name: archive.read(name) for name in names}
    write_zip(path, content, zipfile.ZIP_STORED)
