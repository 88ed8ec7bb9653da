"""Detect what a file holds, whatever its name says, and unpack gzip."""

from __future__ import annotations

import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InputError
from ..memory import size

try:
    from isal import igzip as gzip  # isal is two to three times as fast
    from isal import isal_zlib as inflate
    from isal.igzip_lib import IsalError

    # the type stub declares IsalError as an instance
    DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error, cast(type[Exception], IsalError))
except ImportError:
    import gzip as gzip
    import zlib as inflate  # type: ignore[no-redef]

    DAMAGED = (EOFError, zlib.error)

GZIP = b"\x1f\x8b\x08"
MOST_EXPANDED = 1032  # bytes that a byte of a gzip stream unpacks to at most
BLOCK = 1 << 20  # bytes that are read or unpacked at a time
FEW = 512  # bytes; programs append as many to a file, for alignment

logger = logging.getLogger(__name__)

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

    The checksum of each member is verified. The stream ends where no other member begins, with and without isal.

    Args:
        file: open file, positioned at the beginning of a member.

    Raises:
        EOFError: while reading, the file ends within a member.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self.file = file
        self.waiting = b""  # bytes of the file that are not unpacked yet
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
        """Count the bytes after the last member, without padding by zeros."""
        count = 0
        while self.waiting:
            count += len(self.waiting.strip(b"\0"))
            self.waiting = self.file.read(BLOCK)
        return count


@contextmanager
def opened(path: Path, kind: str) -> Iterator[tuple[io.BufferedReader, GzipStream | None]]:
    """Open a volume file, and unpack it if its content is gzip, whatever its name says.

    Args:
        path: volume file.
        kind: format that its name implies, for messages.

    Yields:
        the unpacked content, and the stream that unpacks it, or None if the file is not compressed.

    Raises:
        InputError: the file is empty or has another format; or reading in the block finds it truncated or damaged.
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
                f"{path}: not a complete {kind} file, truncated or damaged ({error}); copy or convert it again"
            ) from error


def check_content(path: Path, head: bytes, kind: str) -> None:
    """Check by its first bytes that a file is not something else with a scan's name, such as a web page.

    Args:
        path: file, for the message.
        head: first 512 bytes of the file, or all bytes of a shorter file.
        kind: expected format, for the message.

    Raises:
        InputError: the file is empty, a Git LFS or git-annex pointer, a web page, an archive or of another format.
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


def refuse_surplus(path: Path, surplus: int, voxels: str, plane: int) -> None:
    """Check the bytes after the voxels of a file: a few are ignored with a warning.

    Args:
        path: file, for the message.
        surplus: number of the bytes.
        voxels: shape in the header, as text.
        plane: bytes of a slice; as many bytes come from a header with too few slices or too small voxels.

    Raises:
        InputError: the bytes are a slice or more.
    """
    if surplus >= min(max(plane, FEW), BLOCK):
        raise InputError(
            f"{path}: {size(surplus)} after the {voxels} voxels of its header, expected none; correct the header, or "
            "convert the file again"
        )
    logger.warning("%s: ignored extra bytes after its voxels", path)
