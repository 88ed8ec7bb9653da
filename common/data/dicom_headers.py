"""Read the header of a DICOM image, and check entries that decoders do not check."""

from __future__ import annotations

import functools
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import

from ..errors import InputError
from ..memory import size

pydicom, has_pydicom = optional_import("pydicom")

DEFERRED = 4096  # bytes; larger elements, mainly the pixels, are skipped
NO_SCANS = {"SEG": "a segmentation", "RTDOSE": "a dose"}  # Modality of objects with pixels that are not a scan
ALLOCATED = (8, 16, 32)  # bits of a pixel that the decoder supports
# Exceptions of pydicom for damaged files; it has no common base class for them.
DAMAGED = (
    EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError, OSError, RecursionError,
    struct.error, zlib.error,
)  # fmt: skip


class Slice(NamedTuple):
    """Store the header entries of one file."""

    path: Path
    series: str
    description: str
    modality: str
    components: int
    size: tuple[int, ...]  # columns, rows, frames
    position: np.ndarray  # centre of the first voxel, LPS, mm
    orientation: np.ndarray  # (2, 3), the directions in which columns and rows count up, LPS
    spacing: np.ndarray  # between rows, between columns, mm
    ends: int | None  # for MONOCHROME1: sum of the lowest and the highest storable value
    syntax: str = ""  # UID of the transfer syntax
    slope: float = 1.0
    intercept: float = 0.0
    frame: int | None = None  # place in a file of several frames
    patient: str = ""  # these three are the same in all slices of a series
    study: str = ""
    reference: str = ""
    marked: bool = True  # whether the file begins with the preamble and the mark DICM


class Identity(NamedTuple):
    """Store the header entries that tell which patient, study and series a file belongs to, and what it shows."""

    patient: str
    study: str
    accession: str
    date: str
    series: str
    number: str
    description: str
    modality: str
    kind: str  # ImageType, such as ORIGINAL\\PRIMARY\\AXIAL
    reference: str = ""  # FrameOfReferenceUID; positions are comparable within one


class _Header:
    """Read the elements of a file without conversion, so that a wrong value affects only its own element."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            try:
                self.elements: Any = pydicom.dcmread(file, defer_size=DEFERRED, force=True)
            except PermissionError:
                raise
            except DAMAGED as error:
                raise not_an_image(path) from error

    def raw(self, keyword: str) -> bytes:
        item = self.elements.get_item(pydicom.datadict.tag_for_keyword(keyword))
        value = getattr(item, "value", None)
        if value is None or isinstance(value, bytes):
            return value or b""
        several = isinstance(value, pydicom.multival.MultiValue)
        return ("\\".join(map(str, value)) if several else str(value)).encode("utf-8", "replace")

    def text(self, keyword: str) -> str:
        return self.raw(keyword).decode("latin-1").strip(" \0")

    def has(self, keyword: str) -> bool:
        """Return whether the header has an element that is not empty."""
        item = self.elements.get_item(pydicom.datadict.tag_for_keyword(keyword))
        return bool(getattr(item, "value", None))

    def integer(self, keyword: str, missing: int) -> int:
        """Return an unsigned 16-bit number, or ``missing``."""
        item = self.elements.get_item(pydicom.datadict.tag_for_keyword(keyword))
        value = getattr(item, "value", None)
        if isinstance(value, bytes) and len(value) >= 2:
            return int.from_bytes(value[:2], "little" if item.is_little_endian else "big")
        return value if isinstance(value, int) else missing

    def numbers(self, keyword: str, count: int) -> np.ndarray:
        """Return ``count`` decimal numbers; all NaN if their number differs or one is not finite."""
        try:
            values = np.array([float(v) for v in self.text(keyword).split("\\")])
        except ValueError:
            values = np.array([])
        return values if values.size == count and np.isfinite(values).all() else np.full(count, np.nan)

    def decoded(self, keyword: str) -> str:
        """Return a string decoded by the header's character sets; an unknown set counts as UTF-8."""
        known = pydicom.charset.python_encoding
        names = [name.strip() for name in self.text("SpecificCharacterSet").split("\\")]
        encodings = ["utf-8"]
        if any(name and name in known for name in names):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's, about an unknown name among known ones
                encodings = pydicom.charset.convert_encodings([name for name in names if name in known])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, about bytes that do not fit
            shown = pydicom.charset.decode_bytes(
                self.raw(keyword).strip(b" \0"), encodings, pydicom.charset.TEXT_VR_DELIMS
            )
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)


def read_identity(path: Path) -> Identity:
    """Read which patient, study and series a DICOM file belongs to, once as long as the file stays the same.

    Raises:
        InputError: the file is damaged.
    """
    status = path.stat()
    return _identity(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(2**16)  # each series of a folder is found among all files of the folder
def _identity(path: Path, length: int, changed: int) -> Identity:
    """Read the identity of a file that has this size in bytes and this time of its last change."""
    header = _Header(path)
    return Identity(
        patient=header.decoded("PatientID"),
        study=header.text("StudyInstanceUID"),
        accession=header.decoded("AccessionNumber"),
        date=header.text("StudyDate"),
        series=header.text("SeriesInstanceUID"),
        number=header.text("SeriesNumber"),
        description=header.decoded("SeriesDescription"),
        modality=header.text("Modality"),
        kind=header.text("ImageType"),
        reference=header.text("FrameOfReferenceUID"),
    )


def read_slice(path: Path) -> Slice:
    """Read the header of an image.

    Raises:
        InputError: the file is damaged or not an image, its number of pixels differs from its header, or its values do
            not follow from the pixels by a slope and an intercept.
    """
    header = _Header(path)
    if (what := NO_SCANS.get(header.text("Modality"))) is not None:
        raise InputError(
            f"{path}: {what} (Modality {header.text('Modality')}), expected a scan; give the series of the scan"
        )
    columns, rows = header.integer("Columns", 0), header.integer("Rows", 0)
    components = header.integer("SamplesPerPixel", 1)
    try:
        frames = int(header.text("NumberOfFrames") or 1)
    except ValueError:
        frames = 0
    if header.text("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2", ""):
        components = max(components, 3)
    if min(columns, rows, components, frames) < 1:
        raise not_an_image(path)
    allocated, stored = header.integer("BitsAllocated", 0), header.integer("BitsStored", 0)
    if allocated not in ALLOCATED or not 0 < stored <= allocated:
        raise InputError(
            f"{path}: BitsAllocated {allocated} and BitsStored {stored} in its header, expected 8, 16 or 32 and at "
            "most this; copy it again, or convert the series to NIfTI"
        )
    if (high := header.integer("HighBit", stored - 1)) != stored - 1:
        raise InputError(
            f"{path}: HighBit {high} and BitsStored {stored} in its header, expected HighBit {stored - 1}; "
            "correct the header, or convert the series to NIfTI"
        )
    if not header.text("RescaleSlope") and header.has("ModalityLUTSequence"):
        raise InputError(
            f"{path}: its values are in a Modality LUT Sequence, expected RescaleSlope and RescaleIntercept; "
            "convert the series to NIfTI with a tool that applies the table"
        )
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if header.text(keyword) and not np.isfinite(header.numbers(keyword, 1)).all():
            raise InputError(f"{path}: {keyword} {header.text(keyword)[:40]}, expected a number; correct the header")
    if header.text("RescaleSlope") and header.numbers("RescaleSlope", 1)[0] == 0:
        raise InputError(f"{path}: RescaleSlope 0 would make all values equal; correct the header")
    if components == header.integer("SamplesPerPixel", 1):
        _check_pixels(path, header, rows * columns * components * frames * allocated // 8)
    signed = header.integer("PixelRepresentation", 0) == 1
    inverted = header.text("PhotometricInterpretation") == "MONOCHROME1"
    return Slice(
        path=path,
        series=header.text("SeriesInstanceUID"),
        description=header.decoded("SeriesDescription"),
        modality=header.text("Modality"),
        components=components,
        size=(columns, rows) if frames == 1 else (columns, rows, frames),
        position=header.numbers("ImagePositionPatient", 3),
        orientation=header.numbers("ImageOrientationPatient", 6).reshape(2, 3),
        spacing=header.numbers("PixelSpacing", 2),
        ends=(-1 if signed else (1 << stored) - 1) if inverted else None,
        syntax=_syntax_of(header),
        slope=header.numbers("RescaleSlope", 1)[0] if header.text("RescaleSlope") else 1.0,
        intercept=header.numbers("RescaleIntercept", 1)[0] if header.text("RescaleIntercept") else 0.0,
        patient=header.decoded("PatientID"),
        study=header.text("StudyInstanceUID"),
        reference=header.text("FrameOfReferenceUID"),
        marked=getattr(header.elements, "preamble", None) is not None,
    )


def read_slices(path: Path) -> list[Slice]:
    """Read the header of an image as one slice, or as a slice for each frame of an enhanced multi-frame image.

    An image with several frames without their positions stays one slice with a third size.

    Raises:
        InputError: see :func:`read_slice`.
    """
    one = read_slice(path)
    if len(one.size) == 2 or one.components > 1:
        return [one]
    elements = _Header(path).elements
    try:
        shared, frames = (elements.get(f"{which}FunctionalGroupsSequence") or [] for which in ("Shared", "PerFrame"))
        if len(frames) != one.size[2]:
            return [one]
        return [_frame(one, k, groups, shared[0] if shared else {}) for k, groups in enumerate(frames)]
    except InputError:
        raise
    except DAMAGED:
        return [one]


def _frame(one: Slice, number: int, groups: Any, shared: Any) -> Slice:
    """Return a frame of an enhanced image, from the functional groups of the frame and those of all frames.

    Raises:
        InputError: its values would be rescaled by 0, or by something that is not a number.
    """

    def value(macro: str, keyword: str, count: int, missing: Any = None) -> np.ndarray:
        for place in (groups, shared):
            if place.get(macro) and place[macro][0].get(keyword) is not None:
                found = np.array(place[macro][0][keyword].value, dtype=float).reshape(-1)
                return found if found.size == count else np.full(count, np.nan)
        return np.full(count, np.nan if missing is None else missing)

    slope = float(value("PixelValueTransformationSequence", "RescaleSlope", 1, one.slope)[0])
    intercept = float(value("PixelValueTransformationSequence", "RescaleIntercept", 1, one.intercept)[0])
    if not (slope and np.isfinite([slope, intercept]).all()):
        raise InputError(
            f"{one.path}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} of frame {number + 1}, expected "
            "numbers, and no slope of 0; correct the header"
        )
    return one._replace(
        size=one.size[:2],
        position=value("PlanePositionSequence", "ImagePositionPatient", 3),
        orientation=value("PlaneOrientationSequence", "ImageOrientationPatient", 6).reshape(2, 3),
        spacing=value("PixelMeasuresSequence", "PixelSpacing", 2),
        slope=slope,
        intercept=intercept,
        frame=number,
    )


def _syntax_of(header: _Header) -> str:
    meta = getattr(header.elements, "file_meta", {})
    return str(meta.get("TransferSyntaxUID", "1.2.840.10008.1.2"))


def not_an_image(path: Path) -> InputError:
    """Return the error for a file beside slices that has no image."""
    return InputError(
        f"{path}: not a DICOM image, or damaged; copy it again, or remove it from the folder if it is a report, a "
        "structure set or the like"
    )


def _check_pixels(path: Path, header: _Header, expected: int) -> None:
    """Check the number of bytes of uncompressed pixels against the header, because GDCM accepts any number."""
    item = header.elements.get_item(pydicom.datadict.tag_for_keyword("PixelData"), keep_deferred=True)
    if item is None:
        raise not_an_image(path)
    syntax = pydicom.uid.UID(_syntax_of(header))
    if syntax.is_private or not syntax.is_transfer_syntax or syntax.is_encapsulated:
        return
    length = item.length if isinstance(item, pydicom.dataelem.RawDataElement) else len(item.value)
    if length - expected not in (0, 1):
        raise InputError(
            f"{path}: {size(length)} of pixels, expected {size(expected)} from Rows, Columns and BitsAllocated; copy "
            "it again, or convert the series to NIfTI"
        )
    if not syntax.is_deflated and item.value_tell + length > path.stat().st_size:
        raise InputError(f"{path}: truncated within its pixels, expected {size(length)}; copy it again")
