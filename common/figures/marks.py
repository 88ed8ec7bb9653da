"""Mark pictures, so that an unchanged picture of this project can be recognised and replaced.

A picture holds the SHA-256 of its other bytes in a text chunk.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import struct
import zlib
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import MARK, check_replaceable, whole_file

PNG_END = 12  # bytes of the last chunk


def check_png(path: str | Path) -> None:
    """Check that a picture may be written: its name ends with .png, and it replaces no file but a picture of ours.

    Raises:
        InputError: matplotlib is missing, the name has another ending, or another file or a changed picture lies there.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"{path}: drawing needs matplotlib, which is not installed; pip install matplotlib")
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: expected the name of a picture to write, which ends with .png")
    check_replaceable(path, is_own_png)


def save_png(figure: Any, path: str | Path) -> Path:
    """Write a matplotlib figure as a marked PNG, whole or not at all.

    Raises:
        InputError: as :func:`check_png`.
    """
    check_png(path)
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    with whole_file(path, is_own_png) as partial:
        partial.write_bytes(_marked_png(content.getvalue()))
    return Path(path)


def is_own_png(path: Path) -> bool:
    """Return whether a file is a marked PNG that nobody changed."""
    content = path.read_bytes()
    size = len(_chunk(b"")) + PNG_END
    return _marked_png(content[:-size] + content[-PNG_END:]) == content


def _marked_png(content: bytes) -> bytes:
    """Return the bytes of a PNG with the mark before the last chunk."""
    return content[:-PNG_END] + _chunk(content) + content[-PNG_END:]


def _chunk(content: bytes) -> bytes:
    """Return the text chunk with the SHA-256 of a PNG's bytes."""
    data = f"tEXt{MARK}\0{hashlib.sha256(content).hexdigest()}".encode()
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
