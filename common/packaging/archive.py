"""Write zip files with reproducible bytes, and unpack zip files into one folder alone."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..files import whole_file
from ..memory import size

EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can hold
MOST_EXPANDED = 20  # bytes to which one byte of an archive may unpack; code packs to a fifth, weights hardly at all
ALWAYS_FITS = 100_000_000  # bytes to which any archive may unpack


def write_zip(path: str | Path, content: Mapping[str, bytes | Path], compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Write a zip. Its bytes depend on the content alone, not on dates, permissions or the order of files.

    Args:
        path: file to write, whole or not at all.
        content: name in the archive to bytes, or to the file that holds them.
        compression: method, as ``zipfile`` names it.
    """
    with whole_file(path) as partial:
        _write_entries(partial, content, compression)


def zip_bytes(content: Mapping[str, bytes]) -> bytes:
    """Return a zip as :func:`write_zip` writes it."""
    buffer = io.BytesIO()
    _write_entries(buffer, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _write_entries(file: Path | io.BytesIO, content: Mapping[str, bytes | Path], compression: int) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type = compression
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data if isinstance(data, bytes) else data.read_bytes())


def unpack_zip(path: Path, folder: Path) -> Path:
    """Unpack a packed bundle into a folder.

    Returns:
        path of the one folder that the zip holds.

    Raises:
        InputError: the file is not a zip, or damaged; a name would leave the folder, is a link, or exists twice; the
            zip does not hold one folder; it unpacks to far more bytes than its size, or to more than the disk has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = check_expansion(path, archive)
            if unpacked > (free := shutil.disk_usage(folder.parent).free):
                raise InputError(f"{path}: unpacks to {size(unpacked)}, but only {size(free)} are free at {folder}")
            names = archive.namelist()
            for entry in archive.infolist():
                _check_entry(path, entry)
            if len({name.lower() for name in names}) < len(names):
                raise InputError(f"{path}: holds two files of the same name; get it again from its source")
            tops = {PurePosixPath(name).parts[0] for name in names}
            if len(tops) != 1:
                raise InputError(f"{path}: holds {', '.join(sorted(tops)) or 'nothing'}; expected one folder")
            archive.extractall(folder)  # compares check sums, too
    except InputError:
        raise
    except Exception as error:  # zipfile raises various errors for damaged, encrypted or unknown content
        raise InputError(f"{path}: not a complete zip file ({error}); get it again from its source") from error
    return folder / tops.pop()


def check_expansion(path: Path, archive: zipfile.ZipFile) -> int:
    """Check from its index alone that an archive unpacks to no more than a package can hold.

    ``zipfile`` unpacks no more of a file than the index says.

    Returns:
        number of bytes to which it unpacks.

    Raises:
        InputError: it unpacks to far more bytes than its size.
    """
    unpacked, own = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if unpacked > max(MOST_EXPANDED * own, ALWAYS_FITS):
        raise InputError(
            f"{path}: its {size(own)} unpack to {size(unpacked)}; expected at most {MOST_EXPANDED} times as much; "
            "do not use it"
        )
    return unpacked


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    if leaves_folder(entry.filename):
        raise InputError(
            f"{path}: its file {entry.filename} would be written outside of the folder; do not use this zip"
        )
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{path}: its file {entry.filename} is a link; expected plain files; do not use it")


def leaves_folder(name: str) -> bool:
    """Return whether a relative path in a list or an archive leaves its folder, on any operating system."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0].startswith("/") or ".." in parts or ":" in parts[0]


def strip_debugging(path: Path) -> None:
    """Remove the names of this machine's source files from a TorchScript file.

    They are in the line numbers of its code, and in an identity computed from these. Loading needs neither.
    """
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith((".debug_pkl", ".data/serialization_id"))]
        content = {name: archive.read(name) for name in names}
    write_zip(path, content, zipfile.ZIP_STORED)
