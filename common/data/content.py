"""Detect what a file holds, whatever its name says, and unpack gzip."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InputError

try:
    from isal import igzip as gzip  # isal is two to three times as fast
    from isal import isal_zlib as inflate
    from isal.igzip_lib import IsalError

    # its stub calls it an instance
    DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error, cast(type[Exception], IsalError))
except ImportError:
    import gzip as gzip
    import zlib as inflate  # type: ignore[no-redef]

    DAMAGED = (EOFError, zlib.error)

GZIP = b"\x1f\x8b\x08"
MOST_EXPANDED = 1032  # bytes that a byte of a gzip stream unpacks to at most
BLOCK = 1 << 20  # bytes that are read or unpacked at a time

POINTERS = {
    b"version https://git-lfs": "a Git LFS pointer; get the file itself with `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer; get the file itself with `git annex get`",
}
MARKUP = {b"<!doctype html": "an HTML page", b"<html": "an HTML page", b"<?xml": "an XML text"}
MARKS = {
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89HDF": "HDF5 data",
    b"NRRD0": "an NRRD file",
    b"ObjectType": "a MetaImage file",
    bytes(12): "zeros",
}


class GzipStream(io.RawIOBase):
    """Unpack the members of a gzip file, one after another.

    Each member's check sum is compared. The stream ends where no other member begins, with and without isal.

    Args:
        file: at the beginning of a member.

    Raises:
        EOFError: from reading, the file ends within a member.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.waiting = b""  # of the file, not unpacked yet
        self.member = inflate.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if self.member.eof:
                self.waiting = self.waiting or self.file.read(BLOCK)
                if len(self.waiting) < len(GZIP):
                    self.waiting += self.file.read(BLOCK)
                if not self.waiting.startswith(GZIP):
                    return 0
                self.member = inflate.decompressobj(wbits=31)
            ended = not self.waiting and not (more := self.file.read(BLOCK))
            if not self.waiting and not ended:
                self.waiting = more
            piece = self.member.decompress(self.waiting, min(len(buffer), 4 * BLOCK))
            self.waiting = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if ended and not self.member.eof:
                raise EOFError("the compressed data end too early")

    def surplus(self) -> int:
        """Return how many bytes follow the last member; zeros are padding and do not count."""
        count = 0
        while self.waiting:
            count += len(self.waiting.strip(b"\0"))
            self.waiting = self.file.read(BLOCK)
        return count


@contextmanager
def opened(path: Path, kind: str) -> Iterator[tuple[io.BufferedReader, GzipStream | None]]:
    """Open a file that should hold a volume, and unpack it if it is compressed with gzip, whatever its name says.

    Args:
        path: the file.
        kind: the format that its name speaks of, for messages.

    Returns:
        its content, and the stream that unpacks it where it is compressed.

    Raises:
        InputError: it is empty, or its first bytes are those of something else; from the block, it is cut or damaged.
    """
    with path.open("rb") as file:
        head = file.peek(512)
        packed = GzipStream(cast(BinaryIO, file)) if head.startswith(GZIP) else None
        stream: Any = file if packed is None else io.BufferedReader(packed, BLOCK)
        try:
            check_content(path, stream.peek(512)[:512], kind)
            yield stream, packed
        except DAMAGED as error:
            raise InputError(
                f"{path}: not a complete {kind} file, cut or damaged ({error}); copy or convert it again"
            ) from error


def check_content(path: Path, head: bytes, kind: str) -> None:
    """Check that a file's first bytes are not those of something that often lies there under a scan's name.

    Args:
        path: for the message.
        head: the first bytes, 512 or all of a shorter file.
        kind: the format that is expected, for the message.

    Raises:
        InputError: it is empty, a pointer to the file itself, a web page, an archive or of another format.
    """
    if not head:
        raise InputError(f"{path}: an empty file, expected {kind}; copy it again")
    if head[128:132] == b"DICM":
        raise InputError(f"{path}: a DICOM file, expected {kind}; give the folder of its series")
    for mark, name in POINTERS.items():
        if mark in head[:256]:
            raise InputError(f"{path}: {name}")
    text = head.lstrip().lower()
    for mark, name in MARKUP.items():
        if text.startswith(mark):
            raise InputError(f"{path}: {name}, expected {kind}; download it again and look for an error page")
    for mark, name in MARKS.items():
        if head.startswith(mark):
            raise InputError(f"{path}: {name}, expected {kind}; unpack, convert or copy it again")
    if head.startswith(GZIP):
        raise InputError(f"{path}: compressed twice, expected {kind}; decompress it once")
