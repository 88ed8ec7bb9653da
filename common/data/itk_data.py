"""Find the files with the voxels of a MetaImage or NRRD header, and check that they hold as many as the header says.

ITK itself fills voxels that the files lack with what the memory held before, and ignores voxels beyond the header's.
"""

from __future__ import annotations

import logging
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..memory import size
from .content import BLOCK, MOST_EXPANDED, refuse_surplus

KINDS = {".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".nhdr": "NRRD"}
LONGEST_HEADER = 1 << 18  # bytes
NRRD = b"NRRD0"  # first bytes of this format
DATA_FILE = b"ElementDataFile"  # last entry of a header of MetaImage
ANY_ZIP = 47  # zlib's mode for gzip and zlib streams alike
UNITS = {  # to mm; without a unit, MetaImage and NRRD are in mm
    "mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "centimeter": 10.0,
    "centimetre": 10.0, "m": 1000.0, "meter": 1000.0, "metre": 1000.0, "um": 0.001, "\u00b5m": 0.001,
    "\u03bcm": 0.001, "micron": 0.001, "micrometer": 0.001, "micrometre": 0.001,
}  # fmt: skip

logger = logging.getLogger(__name__)


class Voxels(NamedTuple):
    """Say where the voxels of a header are.

    Args:
        files: files with the voxels, in their order.
        start: bytes before the voxels in each file; None if the voxels are the last bytes, or if it is unknown.
        packed: whether the voxels are compressed.
        length: bytes of the compressed voxels; None to the end of the file.
    """

    files: tuple[Path, ...]
    start: int | None
    packed: bool = False
    length: int | None = None


def scan_files(path: Path) -> list[Path]:
    """Return the files of a scan: the file itself, and those to which its header of MetaImage or NRRD refers."""
    if path.suffix.lower() not in KINDS or not path.is_file():
        return [path]
    try:
        found = _voxels_of(path, read_head(path))
    except (InputError, OSError):  # reading the scan reports it
        return [path]
    return [path, *(file for file in (found.files if found is not None else ()) if file != path)]


def read_head(path: Path) -> bytes:
    """Read the first bytes of a file, which contain its header."""
    with path.open("rb") as file:
        return file.read(LONGEST_HEADER)


def header_fields(head: bytes) -> dict[str, str]:
    """Return the entries of a header by their names; names of NRRD in lower case."""
    if head.startswith(NRRD):
        text = head.replace(b"\r", b"").partition(b"\n\n")[0].decode("utf-8", "replace")
        lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
        return {key.strip().lower(): value.strip() for key, _, value in lines if not value.startswith("=")}
    before, mark, after = head.partition(DATA_FILE)
    text = (before + mark + after.partition(b"\n")[0]).decode("utf-8", "replace")
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def unit_of(path: Path, fields: Mapping[str, str]) -> float:
    """Return the factor from the unit of a header to mm, with a warning if it is another unit.

    Raises:
        InputError: the unit is unknown, or differs between the axes.
    """
    name = "space units" if "space units" in fields else "DistanceUnits"
    text = fields.get(name, "")
    units = {unit.strip().lower() for unit in (re.findall(r'"([^"]*)"', text) or [text])} - {"", "?"}
    unit = units.pop() if units else "mm"
    factor = UNITS.get(unit, UNITS.get(unit.removesuffix("s")))
    if units or factor is None:
        raise InputError(f"{path}: {name} is {text}, expected one of mm, cm, m and um for all axes; correct the header")
    if factor != 1:
        logger.warning("%s: converted the unit %s to mm", path, unit)
    return factor


def _voxels_of(path: Path, head: bytes) -> Voxels | None:
    """Return where the voxels of a header are, or None for an encoding that only ITK knows, such as text.

    Raises:
        InputError: the header does not say how many bytes the compressed voxels have.
    """
    fields = header_fields(head)
    return (_of_nrrd if head.startswith(NRRD) else _of_metaimage)(path, head, fields)


def check_voxels(path: Path, head: bytes, shape: Sequence[int], itemsize: int, unpack: bool) -> None:
    """Check that the files of a header hold its voxels.

    Args:
        path: file with the header.
        head: see :func:`read_head`.
        shape: shape in the header, in voxels.
        itemsize: bytes of a voxel.
        unpack: whether to unpack compressed voxels to count them; otherwise, only their largest number is checked.

    Raises:
        InputError: a file is missing or damaged, or there are fewer or many more voxels than the header says.
    """
    found = _voxels_of(path, head)
    if found is None:
        return
    expected, voxels = math.prod(shape) * itemsize, " x ".join(map(str, shape))
    if missing := [file for file in found.files if not file.is_file()]:
        raise InputError(f"{path}: its data file {missing[0]} is missing; copy it to this place")
    held = sum(max(file.stat().st_size - (found.start or 0), 0) for file in found.files)
    most = held * (MOST_EXPANDED if found.packed else 1)
    exact = not found.packed
    if found.packed and unpack:
        most, exact = _count_unpacked(path, found), True
    if most < expected:
        bound = "" if exact else " at most, unpacked"
        raise InputError(
            f"{path}: truncated, or its header is wrong: {voxels} voxels need {size(expected)}, but "
            f"{'the file has' if found.files == (path,) else 'its data files have'} {size(most)}{bound}; copy it again"
        )
    if exact and found.start is not None and most > expected:
        refuse_surplus(path, most - expected, voxels, math.prod(shape[:2]) * itemsize)


def _count_unpacked(path: Path, found: Voxels) -> int:
    """Return the number of bytes of compressed voxels.

    Raises:
        InputError: the stream is damaged or ends too early.
    """
    count, member = 0, zlib.decompressobj(wbits=ANY_ZIP)
    with found.files[0].open("rb") as file:
        file.seek(found.start or 0)
        left = math.inf if found.length is None else found.length
        try:
            while not member.eof and (piece := file.read(int(min(BLOCK, left)))):
                left -= len(piece)
                while piece and not member.eof:
                    count += len(member.decompress(piece, 4 * BLOCK))
                    piece = member.unconsumed_tail
        except zlib.error as error:
            raise InputError(
                f"{path}: its compressed voxels are damaged ({error}); copy or convert it again"
            ) from error
    count += len(member.flush())
    if not member.eof:
        raise InputError(f"{path}: its compressed voxels end too early; copy it again")
    return count


def _of_metaimage(path: Path, head: bytes, fields: Mapping[str, str]) -> Voxels | None:
    name, words = fields.get("ElementDataFile", ""), fields.get("ElementDataFile", "").split()
    if not words or fields.get("BinaryData", "").lower() == "false":
        return None
    skipped = int(fields.get("HeaderSize", "0")) if re.fullmatch(r"-?\d+", fields.get("HeaderSize", "0")) else 0
    start: int | None = None if skipped < 0 else skipped
    files: tuple[Path, ...]
    if words[0].upper() == "LOCAL":
        after = head.find(b"\n", head.index(DATA_FILE)) + 1
        files, start = (path,), None if skipped < 0 else skipped or after
    else:
        listed = head.partition(DATA_FILE)[2] if words[0].upper() == "LIST" else None
        files = _named_files(path.parent, name, listed, bounds=2)
    if fields.get("CompressedData", "").lower() != "true":
        return Voxels(files, start)
    length = fields.get("CompressedDataSize", "")
    if not length.isdecimal() or int(length) < 1 or len(files) > 1:
        found = f"CompressedDataSize is {length or 'missing'}" if len(files) == 1 else f"{len(files)} compressed files"
        raise InputError(
            f"{path}: {found}, expected one file and the number of its compressed bytes; convert the scan again"
        )
    return Voxels(files, start, packed=True, length=int(length))


def _of_nrrd(path: Path, head: bytes, fields: Mapping[str, str]) -> Voxels | None:
    def number(*names: str) -> int:
        text = next((fields[name] for name in names if name in fields), "0")
        return int(text) if re.fullmatch(r"-?\d+", text) else 0

    encoding = fields.get("encoding", "").lower()
    skipped, lines = number("byte skip", "byteskip"), number("line skip", "lineskip")
    name = fields.get("data file", fields.get("datafile", ""))
    words = name.split()
    start: int | None = 0
    files: tuple[Path, ...]
    if not words:
        end = re.search(rb"\r?\n\r?\n", head)
        files, start = (path,), None if end is None else end.end()
    else:
        files = _named_files(path.parent, name, head.partition(b"LIST")[2] if words[0] == "LIST" else None, bounds=3)
    if encoding == "raw":
        return Voxels(files, None if start is None or lines or skipped < 0 else start + skipped)
    if encoding in ("gz", "gzip") and start is not None and len(files) == 1 and not (lines or skipped):
        return Voxels(files, start, packed=True)
    return Voxels(files, None, packed=True) if encoding in ("bz2", "bzip2") else None


def _named_files(folder: Path, name: str, listed: bytes | None, bounds: int) -> tuple[Path, ...]:
    """Return the files that an entry of a header names: a list, a pattern with numbers, or one file.

    Args:
        folder: folder of the header.
        name: text of the entry.
        listed: header from the entry on, if it says that the next lines name the files; else None.
        bounds: fewest numbers after a pattern.
    """
    if listed is not None:
        lines = listed.partition(b"\n")[2].decode("utf-8", "replace").splitlines()
        return tuple(folder / line.strip() for line in lines if line.strip())
    words = name.split()
    if "%" in words[0] and len(words) > bounds:
        return tuple(folder / file for file in _numbered(words[0], words[1:]))
    return (folder / name,)


def _numbered(pattern: str, bounds: Sequence[Any]) -> list[str]:
    """Return the names of a pattern such as ``s%03d.raw`` for ``first last step``."""
    try:
        first, last, step = (int(bound) for bound in [*bounds, "1"][:3])
        return [pattern % number for number in range(first, last + 1, step)]
    except (TypeError, ValueError):
        return [pattern]
