"""Read JSON, write complete files, claim folders for one process and compute SHA-256."""

from __future__ import annotations

import atexit
import filecmp
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from .errors import InputError

MARK = "sha256"  # key in a JSON file of this project; its value is the digest of the other keys and values
WIDTH = 140  # characters of a line of JSON
CLAIM = ".in_use"  # lock file in a folder that a process has claimed
CLAIM_SECONDS = 1.0  # time in s to wait for a lock, since a killed process may take a moment to end
PARTIAL = ".partial_"  # prefix of a temporary file; the number of the process that writes it follows
PARTIAL_OWNER = re.compile(rf"{re.escape(PARTIAL)}(\d{{1,9}})_[0-9a-f]{{8}}(\.|$)")

_claims: dict[Path, BaseFileLock] = {}

logger = logging.getLogger(__name__)


@contextmanager
def whole_file(path: str | Path, is_own: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to ``path`` at the end of the block.

    After an error or an interruption in the block, ``path`` is unchanged and the temporary file is removed. No other
    process uses the same temporary path.

    Args:
        path: file to write.
        is_own: function as in :func:`check_replaceable`. A file with the same bytes is not written again. Without
            ``is_own``, any file is replaced.

    Raises:
        InputError: if the file cannot be written, such as on a full disk, or must not be replaced.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}_{secrets.token_hex(4)}{''.join(path.suffixes[-2:])}")
    try:
        with failures_of_writing(path):
            yield partial
            if is_own is not None and not (path.is_file() and filecmp.cmp(partial, path, shallow=False)):
                check_replaceable(path, is_own)
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def failures_of_writing(path: Path) -> Iterator[None]:
    """Turn a system error about a path, or about a temporary one, into an ``InputError`` that names the path.

    Raises:
        InputError: if the block raises an ``OSError`` that names no other file.
    """
    try:
        yield
    except OSError as error:
        named = None if error.filename is None else str(error.filename)
        if named not in (None, str(path)) and PARTIAL not in str(named):
            raise
        raise InputError(
            f"{path}: cannot be written ({os_reason(error)}); choose another place, or free disk space"
        ) from error


def check_replaceable(path: str | Path, is_own: Callable[[Path], bool]) -> None:
    """Check that a file may be written: the path is free, or has a file that this project wrote.

    Args:
        path: file to write.
        is_own: function path -> bool; returns whether this project wrote the file and nobody changed it since.

    Raises:
        InputError: if the path has another file or a folder, or a parent of the path is a file.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected the name of a file to write; choose another name")
    _check_no_file(path.parent)
    if os.path.lexists(path) and not (path.is_file() and is_own(path)):
        raise InputError(
            f"{path}: another file of this name, or one that was changed since it was written; move it away, or choose "
            "another place to write to"
        )


def make_folder(folder: str | Path) -> None:
    """Make a folder and its parents if they are missing.

    Raises:
        InputError: if the path or one of its parents is a file, or the folder cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _check_no_file(Path(folder))
        raise InputError(f"{folder}: cannot be made ({os_reason(error)}); choose another folder") from error


def check_writable(folder: Path) -> None:
    """Check that files can be written into a folder; make the folder if it is missing.

    Raises:
        InputError: if they cannot, as on a disk that is mounted for reading.
    """
    make_folder(folder)
    with failures_of_writing(folder), tempfile.TemporaryFile(dir=folder, prefix=PARTIAL):
        pass


def _check_no_file(folder: Path) -> None:
    for above in (folder, *folder.parents):
        if os.path.lexists(above) and not os.path.isdir(above):
            raise InputError(f"{above}: a file, expected a folder; choose another place to write to")


def claim_folder(folder: str | Path) -> None:
    """Lock a folder for this process until it ends, so that a second process cannot write there.

    Make the folder if it is missing, and remove unfinished files of killed processes from it. A process may claim the
    same folder again. In a distributed run, only the first process claims.

    If the folder is not writable, claim nothing. If the file system does not support locks, log a warning.

    Raises:
        InputError: if another process has claimed the folder, or the folder cannot be made.
    """
    folder = Path(folder).resolve()
    make_folder(folder)
    file = folder / CLAIM
    if folder in _claims:
        if _claims[folder].is_locked and file.exists():
            return
        _claims.pop(folder).release()  # the folder was removed and made again
    lock = FileLock(
        file, CLAIM_SECONDS, mode=0o666, thread_local=False, is_singleton=True
    )  # mode 0o666: in a shared folder, another user may claim it next
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder}: another process is writing there; wait until it has ended, or choose another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        if os.access(folder, os.W_OK):
            logger.warning("%s: cannot be locked (%s); start no second run into this folder", folder, error)
        return
    _claims[folder] = lock
    remove_unfinished(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of killed processes from a folder, without its subfolders."""
    for partial in folder.glob(f"{PARTIAL}*"):
        owner = PARTIAL_OWNER.match(partial.name)
        if owner is not None and partial.is_file() and not _runs(int(owner[1])):
            with suppress(OSError):
                partial.unlink()


@atexit.register
def _release_claims() -> None:
    for lock in _claims.values():
        if lock.is_locked:  # false in a forked process
            with suppress(OSError):  # Windows does not remove an open file
                if not Path(lock.lock_file).stat().st_size:  # a user's file of this name has content; keep it
                    Path(lock.lock_file).unlink()
            lock.release()


def _runs(process: int) -> bool:
    """Return whether another process with this number runs. Windows has no harmless check, so return True there."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return process != os.getpid()  # the first process of every container has the same number


def os_reason(error: OSError) -> str:
    """Return the system's text for an error, without the error number and the file."""
    return error.strerror or str(error)


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8 or UTF-16, with or without a byte order mark, in any locale.

    Raises:
        InputError: if the file cannot be read or is not valid JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON in UTF-8 ({error})") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_own_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write an object and the SHA-256 of its keys and values. The file appears once it is complete.

    Raises:
        InputError: if the path has a file that this function did not write, or that was changed since.
    """
    text = json.dumps({**content, MARK: _digest(content)}, indent=1)
    with whole_file(path, is_own_json) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def is_own_json(path: Path) -> bool:
    """Return whether :func:`write_own_json` wrote a file and nobody changed a key or value since."""
    try:
        content = read_json(path)
    except InputError:
        return False
    return isinstance(content, dict) and content.pop(MARK, None) == _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def dense_json(value: Any, indent: int = 0, used: int = 0) -> str:
    """Return JSON text that puts each value on one line if it fits, and else breaks it over several lines."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value or (indent and indent + used + len(line) < WIDTH):
        return line
    inner = " " * (indent + 2)
    if isinstance(value, list):
        parts = [dense_json(item, indent + 2) for item in value]
        start, end = "[]"
    else:
        names = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        parts = [name + dense_json(item, indent + 2, len(name)) for name, item in zip(names, value.values())]
        start, end = "{}"
    return start + "\n" + ",\n".join(inner + part for part in parts) + "\n" + " " * indent + end
