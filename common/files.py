"""Read JSON with a clear message, write files whole or not at all, claim folders, compute SHA-256."""

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from .errors import InputError

MARK = "sha256"  # key of the digest of what else a file of ours holds
WIDTH = 140  # characters of a line of JSON
CLAIM = ".in_use"  # in a folder that a process has claimed
CLAIM_SECONDS = 1.0  # that a claim waits, as for a killed process to be gone
PARTIAL = ".partial_"  # before the number of the process that writes a file
PARTIAL_OWNER = re.compile(rf"{re.escape(PARTIAL)}(\d{{1,9}})_[0-9a-f]{{8}}(\.|$)")

_claims: dict[Path, BaseFileLock] = {}

logger = logging.getLogger(__name__)


@contextmanager
def whole_file(path: str | Path, is_own: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary name to write to, which becomes ``path`` at the end of the block.

    An error or an interruption in the block leaves ``path`` as it was, and nothing beside it. No other process has the
    temporary name.

    Args:
        path: the file to write.
        is_own: as for :func:`check_replaceable`; a file with the same bytes is left as it is. Unless given, any file
            is replaced.

    Raises:
        InputError: the file cannot be written, as where the disk is full, or it is not to be replaced.
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
    """Give what the system says against writing, also to temporary names, the name of the file or folder.

    Raises:
        InputError: in place of an error of the system, unless that names another file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and PARTIAL not in str(error.filename):
            raise
        raise InputError(
            f"{path}: cannot be written ({os_reason(error)}); choose another place, or make room"
        ) from error


def check_replaceable(path: str | Path, is_own: Callable[[Path], bool]) -> None:
    """Check that a file may be written: nothing lies there, or a file that is own.

    Args:
        path: the file to write.
        is_own: whether a file is known as one that this project wrote and nobody changed since.

    Raises:
        InputError: another file or a folder lies there, or a file lies above.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, expected the name of a file to write; choose another")
    _check_no_file(path.parent)
    if os.path.lexists(path) and not (path.is_file() and is_own(path)):
        raise InputError(
            f"{path}: another file of this name, or one that was changed since it was written; move it away, or choose "
            "another place to write to"
        )


def make_folder(folder: str | Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        InputError: a file lies there or above, or the folder cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _check_no_file(Path(folder))
        raise InputError(f"{folder}: cannot be made ({os_reason(error)}); choose another folder") from error


def _check_no_file(folder: Path) -> None:
    for above in (folder, *folder.parents):
        if os.path.lexists(above) and not os.path.isdir(above):
            raise InputError(f"{above}: a file, expected a folder; choose another place to write to")


def claim_folder(folder: str | Path) -> None:
    """Keep a folder for this process until it ends: another process that claims it meanwhile gets an error.

    The folder is made unless it is there. Files that a killed process left unfinished in it are removed. A process
    may claim a folder again. Of the processes of a distributed run, only the first claims.

    Where the system refuses the lock because nothing can be written, nothing is claimed. Where a file system knows no
    locks, a warning says so.

    Raises:
        InputError: another process has the folder, or it cannot be made.
    """
    folder = Path(folder).resolve()
    make_folder(folder)
    file = folder / CLAIM
    if folder in _claims:
        if _claims[folder].is_locked and file.exists():
            return
        _claims.pop(folder).release()  # the folder was removed meanwhile, and made again
    lock = FileLock(
        file, CLAIM_SECONDS, mode=0o666, thread_local=False, is_singleton=True
    )  # of a group's shared folder, every user may have it next
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
    for partial in folder.glob(f"{PARTIAL}*"):
        owner = PARTIAL_OWNER.match(partial.name)
        if owner is not None and partial.is_file() and not _runs(int(owner[1])):
            with suppress(OSError):
                partial.unlink()


@atexit.register
def _release_claims() -> None:
    for lock in _claims.values():
        if lock.is_locked:  # not so in a forked process
            with suppress(OSError):  # Windows removes no file that is open
                if not Path(lock.lock_file).stat().st_size:  # ours is empty
                    Path(lock.lock_file).unlink()
            lock.release()


def _runs(process: int) -> bool:
    """Return whether another process has this number; on Windows, which has no harmless way to ask, always true."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return process != os.getpid()  # a container gives every first process the same number


def os_reason(error: OSError) -> str:
    """Return what the system says of an error, without its number and file."""
    return error.strerror or str(error)


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8 or UTF-16, with or without a byte order mark, whatever the locale.

    Raises:
        InputError: the file cannot be read, or is not valid JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON in UTF-8 ({error})") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_own_json(content: Mapping[str, Any], path: str | Path) -> None:
    """Write an object with the SHA-256 of its keys and values; the file appears once it is complete.

    Raises:
        InputError: a file lies there that this function did not write, or that was changed since.
    """
    text = json.dumps({**content, MARK: _digest(content)}, indent=1)
    with whole_file(path, is_own_json) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def is_own_json(path: Path) -> bool:
    """Return whether :func:`write_own_json` wrote a file, and no key or value was changed since."""
    try:
        content = read_json(path)
    except InputError:
        return False
    return isinstance(content, dict) and content.pop(MARK, None) == _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def dense_json(value: Any, indent: int = 0, used: int = 0) -> str:
    """Return JSON text with one component a line where it fits."""
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
