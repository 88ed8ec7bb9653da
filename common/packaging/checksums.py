"""Write and check the list of a package's files with their SHA-256, in the format of ``sha256sum``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..errors import InputError
from ..files import sha256, whole_file
from .archive import leaves_folder

LIST = "SHA256SUMS"
SIGNATURE = "model.sig"  # signs the list, which therefore cannot name it
# Using a package adds these to its folder: results, data, and files of the Hugging Face Hub.
ADDED_BY_USE = ("eval", "data", "demo", "README.md", ".gitattributes", ".cache", ".huggingface")
ADDED_BY_DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini")


def write_checksums(folder: Path) -> None:
    """List every file of a folder in its ``SHA256SUMS``."""
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files(folder)]
    with whole_file(folder / LIST) as partial:
        partial.write_bytes("".join(lines).encode())


def check_checksums(folder: Path, may_lack: Collection[str] = ()) -> None:
    """Compare a folder with its ``SHA256SUMS``.

    Args:
        folder: folder of a package.
        may_lack: paths of files that may be missing.

    Raises:
        InputError: the list is missing; or a file is missing, changed, a link, not listed, or outside of the folder.
    """
    listed = read_checksums(folder)
    for name, digest in listed.items():
        path = folder / name
        if name in may_lack and not path.exists():
            continue
        if not path.is_file() and not path.is_symlink():
            raise InputError(f"{path}: missing; get the package again from its source")
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path}: is a link; expected the file itself; get the package again from its source")
        if sha256(path) != digest:
            raise InputError(f"{path}: changed since it was packed (its SHA-256 differs); get the package again")
    for path in foreign_files(folder, listed):
        if path.relative_to(folder).parts[0] not in ADDED_BY_USE:
            fix = "delete these folders" if path.parent.name == "__pycache__" else "move it elsewhere"
            raise InputError(f"{path}: not one of the package's files; {fix}")


def unlisted_files(folder: Path, listed: Collection[str]) -> list[Path]:
    """Return the files of a folder that its list does not name, without the list itself."""
    known = {*listed, LIST}
    return [path for path in _files(folder) if path.relative_to(folder).as_posix() not in known]


def foreign_files(folder: Path, listed: Collection[str]) -> list[Path]:
    """Return the unlisted files of a folder, without the signature and the files that a desktop writes."""
    unlisted = unlisted_files(folder, listed)
    return [path for path in unlisted if path != folder / SIGNATURE and path.name not in ADDED_BY_DESKTOP]


def read_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each name in a folder's ``SHA256SUMS``.

    Raises:
        InputError: the list is missing, or one of its lines has another form, a name that another line has, or a file
            outside of the folder.
    """
    if not (folder / LIST).is_file():
        raise InputError(f"{folder}: no {LIST}; expected a folder or zip that `python -m common pack` made")
    listed: dict[str, str] = {}
    for number, line in enumerate((folder / LIST).read_text("utf-8", "replace").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or name in listed:
            raise InputError(f"{folder / LIST}, line {number}: expected a SHA-256, two spaces and a new name")
        if leaves_folder(name):
            raise InputError(f"{folder / LIST}, line {number}: {name} is outside of the folder; do not use it")
        listed[name] = digest
    return listed


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
