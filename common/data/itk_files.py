"""Read MetaImage and NRRD files with ITK: check the header first, then read the voxels."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import optional_import

from ..errors import InputError, is_out_of_memory
from ..memory import check_memory
from .content import check_content
from .itk_data import DATA_FILE, KINDS, NRRD, check_voxels, header_fields, read_head, unit_of

itk, has_itk = optional_import("itk", allow_namespace_pkg=True)

MARKS = (NRRD, b"ObjectType")  # first bytes of these formats
SUFFIXES = tuple(KINDS)
SPACE = "left-posterior-superior"  # ITK converts the three spaces of NRRD to this one
INTEGERS = {"unsigned_char": "UC", "short": "SS", "unsigned_short": "US", "int": "SI", "unsigned_int": "UI"}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


class ItkHeader(NamedTuple):
    """Store the header entries about the voxels."""

    shape: tuple[int, ...]
    affine: np.ndarray  # 4x4, voxels to RAS+ millimetres
    itemsize: int  # bytes of a voxel
    integer: str | None  # ITK's name of an integer type that it reads without conversion


def read_itk_header(path: Path, unpack: bool = False) -> ItkHeader:
    """Read the header of a file without its voxels.

    Args:
        path: file to read.
        unpack: whether to unpack compressed voxels to count them.

    Raises:
        InputError: itk is not installed, the file has another format, its header is damaged, a voxel has several
            values, or the number of voxels differs from the header; see :func:`common.data.itk_data.check_voxels`.
    """
    if not has_itk:
        raise InputError(f"{path}: reading this format needs the package itk (pip install itk), or convert it to NIfTI")
    kind = KINDS[path.suffix.lower()]
    head = read_head(path)
    if not head.startswith(MARKS):
        check_content(path, head[:512], kind)
    if kind == "MetaImage" and not head.startswith(NRRD) and DATA_FILE in head:
        _check_metaimage(path, head)
    reader = itk.ImageIOFactory.CreateImageIO(os.fspath(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise InputError(f"{path}: not a {kind} file, found {head[:16]!r} at its beginning; copy or convert it again")
    reader.SetFileName(os.fspath(path))
    try:
        reader.ReadImageInformation()
        name = reader.GetComponentTypeAsString(reader.GetComponentType())
        itemsize = int(reader.GetComponentSize())
    except (RuntimeError, MemoryError, ValueError) as error:
        raise InputError(
            f"{path}: the header is damaged or not supported by ITK, or its data file is missing "
            f"({itk_reason(error)}); copy it again, or convert it to NIfTI"
        ) from error
    shape = tuple(int(reader.GetDimensions(i)) for i in range(reader.GetNumberOfDimensions()))
    if (components := reader.GetNumberOfComponents()) != 1:
        raise InputError(
            f"{path}: {components} values in each voxel (layers, vectors or colours), expected one; export a single "
            "layer, or a 4-D NIfTI file for several modalities"
        )
    if min(shape, default=0) < 1:
        raise InputError(f"{path}: shape {shape} in its header, expected positive numbers; copy or convert it again")
    if kind == "NRRD":
        tags = reader.GetMetaDataDictionary()
        _check_nrrd(path, head, str(tags["NRRD_space"]) if tags.HasKey("NRRD_space") else "", len(shape))
    check_voxels(path, head, shape, itemsize, unpack)
    affine = _affine(reader, len(shape))
    if np.linalg.det(affine) == 0:  # ITK would refuse to read the voxels, without the reason
        raise InputError(f"{path}: a spacing of 0 or directions that lie in a plane in its header; correct the header")
    affine[:3] *= unit_of(path, header_fields(head))
    return ItkHeader(shape, affine, itemsize, INTEGERS.get(name))


def read_itk(path: Path, integers: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read a file as an array ``(x, y, z, ...)`` and its 4x4 affine to RAS+ millimetres.

    Args:
        path: file to read.
        integers: whether integers keep their type; otherwise the array is float32.

    Raises:
        InputError: see :func:`read_itk_header`; or the voxels are truncated, damaged or larger than the memory.
    """
    shape, affine, itemsize, integer = read_itk_header(path, unpack=True)
    reading = f"reading {' x '.join(map(str, shape))} voxels"
    kept = integer if integers else None
    need = math.prod(shape) * max(itemsize + 4, 8)  # bytes: ITK's array and the converted one, or that and its copy
    check_memory(str(path), reading, need, "check the header, or use a machine with more memory")
    try:
        image = itk.imread(os.fspath(path), getattr(itk, kept or "F"))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{path}: {reading} needs more memory than available; use a machine with more memory"
            ) from error
        raise InputError(
            f"{path}: the voxels are truncated or damaged, or the data file in its header is missing; copy or convert "
            "it again"
        ) from error
    return itk.array_from_image(image).T, affine


def _check_metaimage(path: Path, head: bytes) -> None:
    """Check the numbers of a header, because ITK replaces missing or invalid ones by 0 or 1.

    Raises:
        InputError: a field is missing, or has another count of numbers.
    """
    fields = {key: value.split() for key, value in header_fields(head).items()}
    fix = "correct the header, or convert the scan again"
    try:
        (axes,) = map(int, fields.get("NDims", []))
        valid = 1 <= axes <= 5
    except ValueError:
        axes, valid = 0, False
    if not valid:
        raise InputError(f"{path}: NDims is {' '.join(fields.get('NDims', ['missing']))}, expected 3 or 4; {fix}")
    for names, count in {
        ("DimSize",): axes,
        ("ElementSpacing", "ElementSize"): axes,
        ("TransformMatrix", "Rotation", "Orientation"): axes * axes,
        ("Offset", "Position", "Origin"): axes,
    }.items():
        found = next((fields[name] for name in names if name in fields), None)
        try:
            valid = found is not None and len(found) == count and all(math.isfinite(float(v)) for v in found)
        except ValueError:
            valid = False
        if not valid:
            shown = "missing" if found is None else " ".join(found)
            raise InputError(f"{path}: {names[0]} is {shown}, expected {count} finite numbers; {fix}")
    for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB", "BinaryData", "CompressedData"):
        if (word := " ".join(fields.get(name, ["False"]))).lower() not in ("true", "false"):
            raise InputError(f"{path}: {name} is {word}, expected True or False; {fix}")
    for name, unscaled in {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"}.items():
        if (word := " ".join(fields.get(name, [unscaled]))).removesuffix(".0") != unscaled:
            raise InputError(
                f"{path}: {name} is {word}, expected {unscaled}, because ITK does not apply it; convert the scan with "
                "a tool that does"
            )
    if not " ".join(fields.get("ElementType", [])).startswith("MET_"):
        raise InputError(f"{path}: no ElementType such as MET_SHORT in its header; {fix}")


def _check_nrrd(path: Path, head: bytes, space: str, axes: int) -> None:
    """Check that a header gives the position of the voxels, because ITK replaces missing entries by 0 or 1.

    Raises:
        InputError: a field is missing, or the space is none of the three that ITK converts.
    """
    fields = header_fields(head)
    missing = [name for name in ("space directions", "space origin") if name not in fields]
    if space != SPACE and (space or axes < 4):  # for four axes, ITK itself returns no space
        missing.insert(0, f"space ({space or 'none'} found)")
    if missing:
        raise InputError(
            f"{path}: {', '.join(missing)} missing in its header, expected a space of left-posterior-superior, "
            "right-anterior-superior or left-anterior-superior with its directions and origin; add them, or convert "
            "the scan to NIfTI"
        )
    if (count := fields["space directions"].count("(")) != 3:
        raise InputError(
            f"{path}: space directions {fields['space directions']}, expected 3 vectors, found {count}; add the "
            "direction of each axis of the scan, or convert the scan to NIfTI"
        )


def _affine(reader: Any, axes: int) -> np.ndarray:
    affine = np.eye(4)
    for i in range(min(axes, 3)):
        affine[: min(axes, 3), i] = np.asarray(reader.GetDirection(i))[:3] * reader.GetSpacing(i)
        affine[i, 3] = reader.GetOrigin(i)
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def itk_reason(error: BaseException) -> str:
    """Return the message of an ITK exception, without source position and object address."""
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return re.sub(r"^.*\(0x[0-9a-f]+\): ", "", last)
