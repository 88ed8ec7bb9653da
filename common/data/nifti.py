"""Read NIfTI files: check the header first, then read the voxels in blocks."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from ..errors import InputError
from ..memory import check_memory, size
from .content import BLOCK, MOST_EXPANDED, opened, refuse_surplus

SUFFIXES = (".nii", ".nii.gz")
KIND = "NIfTI"
SINGLE_FILE = {nib.Nifti1Header: b"n+1", nib.Nifti2Header: b"n+2"}  # other headers have their voxels in a second file
UNITS = {0: ("unknown", 1.0), 1: ("metre", 1000.0), 2: ("mm", 1.0), 3: ("micron", 0.001)}  # to mm
PIECE = 1 << 20  # voxels to convert at a time

logger = logging.getLogger(__name__)


class NiftiHeader(NamedTuple):
    """Store the header entries about the voxels."""

    shape: tuple[int, ...]
    affine: np.ndarray  # 4x4, voxels to RAS+ millimetres
    dtype: np.dtype
    offset: int  # bytes before the voxels in the unpacked file
    slope: float
    inter: float
    size: int  # bytes of the header


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a file without its voxels.

    Raises:
        InputError: the file has another format, its header is damaged, or the file is too small for its voxels.
    """
    with opened(path, KIND) as (stream, packed):
        return _header(path, stream, packed is not None)


def read_nifti(path: Path, integers: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read a file as an array ``(x, y, z, ...)`` and its 4x4 affine to RAS+ millimetres.

    Args:
        path: file to read; its content decides whether it is compressed, not its name.
        integers: whether integers without slope and intercept keep their type; otherwise the array is float32.

    Raises:
        InputError: see :func:`read_nifti_header`; or the voxels are not real numbers, truncated, damaged or larger than
            the memory.
    """
    with opened(path, KIND) as (stream, packed):
        header = _header(path, stream, packed is not None)
        shape, _, dtype, offset, slope, inter, begun = header
        if dtype.fields is not None or dtype.kind == "c":
            kind = "colour (RGB)" if dtype.fields is not None else "complex"
            raise InputError(f"{path}: {kind} voxels, expected one real number in each; convert it")
        kept = integers and dtype.kind in "iu" and (slope, inter) == (1, 0)
        count, to = math.prod(shape), dtype.newbyteorder("=") if kept else np.dtype(np.float32)
        # twice the size, because later steps such as joining channels make a copy
        reading = f"reading {' x '.join(map(str, shape))} voxels"
        check_memory(str(path), reading, 2 * count * to.itemsize, "check the header, or use a machine with more memory")
        _skip(stream, offset - begun)
        values = np.empty(count, to)
        for start in range(0, count, PIECE):
            part = np.empty(min(PIECE, count - start), dtype)
            if stream.readinto(part.view(np.uint8)) < part.nbytes:  # type: ignore[arg-type]
                raise EOFError("the file ends within its voxels")
            # float32 factors give the same rounding as nibabel's get_fdata(dtype=float32)
            with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite
                values[start : start + PIECE] = apply_read_scaling(part, np.float32(slope), np.float32(inter))
        surplus = _rest(stream)
        if surplus or (packed is not None and packed.surplus()):
            refuse_surplus(path, surplus, " x ".join(map(str, shape)), math.prod(shape[:2]) * dtype.itemsize)
    return values.reshape(shape, order="F"), header.affine


def read_description(path: Path) -> str:
    """Read the text ``descrip`` of a header, in Latin-1."""
    with opened(path, KIND) as (stream, _):
        return _parsed(path, stream)["descrip"].item().decode("latin-1")


def _parsed(path: Path, stream: io.BufferedReader) -> nib.Nifti1Header:
    """Read the header and let nibabel check it; the stream then is at the first byte after the header."""
    head = stream.read(nib.Nifti1Header.sizeof_hdr)
    kind = next((k for k in SINGLE_FILE for order in ("<i4", ">i4") if _begins_with(head, k.sizeof_hdr, order)), None)
    if kind is None or len(head) < nib.Nifti1Header.sizeof_hdr:
        raise InputError(f"{path}: not a NIfTI file, found {head[:16]!r} at its beginning; copy or convert it again")
    head += stream.read(kind.sizeof_hdr - len(head))
    if SINGLE_FILE[kind] not in head:
        raise InputError(
            f"{path}: found the header of a pair .hdr and .img, expected a single NIfTI file; convert the pair"
        )
    try:
        header = kind(head[: kind.sizeof_hdr])
        spacing = kind(head[: kind.sizeof_hdr], check=False)["pixdim"][1:4]
    except (HeaderDataError, WrapStructError) as error:
        raise InputError(f"{path}: its NIfTI header is damaged ({error}); copy or convert it again") from error
    if not header["sform_code"] and (spacing == 0).any():  # nibabel makes it 1
        shown = " x ".join(f"{side:g}" for side in spacing)
        raise InputError(
            f"{path}: pixdim {shown} in its header without sform, expected sizes above 0; correct the header"
        )
    return header


def _begins_with(head: bytes, number: int, order: str) -> bool:
    return head[:4] == np.array(number, order).tobytes()


def _header(path: Path, stream: io.BufferedReader, packed: bool) -> NiftiHeader:
    header = _parsed(path, stream)
    if path.name.lower().endswith(".gz") != packed:
        found = "compressed" if packed else "not compressed"
        logger.warning("%s: the file is %s, which its suffix contradicts; read by its content", path, found)
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype, offset = header.get_data_dtype(), int(header.get_data_offset()) or header.single_vox_offset
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: its NIfTI header is damaged ({error}); copy or convert it again") from error
    if min(shape, default=0) < 1:
        raise InputError(f"{path}: shape {shape} in its header, expected positive numbers; copy or convert it again")
    promised = offset + math.prod(shape) * dtype.itemsize
    held = path.stat().st_size * (MOST_EXPANDED if packed else 1)
    if promised > held:
        most = " at most, unpacked" if packed else ""
        raise InputError(
            f"{path}: truncated, or its header is wrong: {' x '.join(map(str, shape))} voxels need "
            f"{size(promised)}, but the file has {size(held)}{most}; copy it again"
        )
    if math.isinf(header["scl_slope"].item()):  # nibabel takes it for no slope
        raise InputError(f"{path}: scl_slope is infinite in its header, expected a number; copy or convert it again")
    slope, inter = (1.0, 0.0) if slope is None else (slope, inter or 0.0)
    return NiftiHeader(shape, _affine(path, header), dtype, offset, slope, inter, header.sizeof_hdr)


def _affine(path: Path, header: nib.Nifti1Header) -> np.ndarray:
    """Return the affine in millimetres; warn if the header is ambiguous."""
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        qform, _ = header.get_qform(coded=True)
        sform, _ = header.get_sform(coded=True)
    except (HeaderDataError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path}: no valid affine in its header ({error}); correct the header") from error
    code = int(header["xyzt_units"]) % 8
    if code not in UNITS:
        raise InputError(f"{path}: unit code {code} in its header, expected 1 (metre), 2 (mm) or 3 (micron)")
    unit, factor = UNITS[code]
    if factor != 1:
        affine[:3] *= factor
        spacing = " x ".join(f"{v:.4g}" for v in np.linalg.norm(affine[:3, :3], axis=0))
        logger.warning("%s: converted the unit %s to mm; voxels of %s mm", path, unit, spacing)
    if qform is None and sform is None:
        logger.warning(
            "%s: neither sform nor qform is set; assumed axes to the left, anterior and superior with the spacing of "
            "pixdim",
            path,
        )
    elif qform is not None and sform is not None and (gap := np.abs(qform - sform).max() * factor) > 0.1:
        logger.warning("%s: sform and qform differ by up to %.3g mm; the sform is used", path, gap)
    else:
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        steps = np.abs(header["pixdim"][1:4].astype(np.float64)) * factor
        valid = np.isfinite(sides).all() and sides.all()  # others are refused later
        if valid and not np.allclose(sides, steps, rtol=0.01, atol=0):
            logger.warning(
                "%s: voxels of %s mm by its sform, but %s mm by its pixdim; the sform is used",
                path, *(" x ".join(f"{side:.4g}" for side in shown) for shown in (sides, steps)),
            )  # fmt: skip
    return affine


def _skip(stream: io.BufferedReader, count: int) -> None:
    while count > 0:
        piece = stream.read(min(count, BLOCK))
        if not piece:
            raise EOFError("the file ends before its voxels")
        count -= len(piece)


def _rest(stream: io.BufferedReader) -> int:
    """Count the remaining bytes, up to just above ``BLOCK``; reading to the end makes gzip verify its checksum."""
    count = 0
    while count <= BLOCK and (piece := stream.read(BLOCK)):
        count += len(piece)
    return count
