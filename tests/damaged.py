"""Write scans that are each damaged in one way: in the stream, header, geometry or values. A seed fixes the damage."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

SHAPE = (12, 10, 8)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2.5, 0, -7], [0, 0, 4.0, 3], [0, 0, 0, 1]])
VOLUME = np.random.default_rng(7).integers(-1000, 1500, SHAPE).astype(np.int16)

NUMBERS = ("-1", "0", "nan", "1e30", "-1e-30", "2147483647", "abc", "")
FIELDS = {  # field of a NIfTI-1 header -> offset in bytes, struct type, wrong values
    "sizeof_hdr": (0, "i", (0, 349, -1)),
    "dim": (40, "h", (0, -3, 8, 2)),
    "dim1": (42, "h", (-5, 0, 1, 32767, 11)),
    "dim3": (46, "h", (-5, 0, 1, 32767, 7, 9)),
    "dim4": (48, "h", (-1, 0, 3)),
    "datatype": (70, "h", (0, 1, 128, 1234, 64, -4)),
    "bitpix": (72, "h", (8, 0, -16)),
    "pixdim0": (76, "f", (0.0, 5.0)),
    "pixdim1": (80, "f", (-2.0, 0.0, float("nan"), float("inf"), 1e30)),
    "vox_offset": (108, "f", (0.0, 10.0, -352.0, 1e6, float("nan"), float("inf"), 1e30)),
    "scl_slope": (112, "f", (0.0, float("nan"), float("inf"), 1e38, -1.0)),
    "scl_inter": (116, "f", (float("nan"), float("inf"), 3e38)),
    "xyzt_units": (123, "B", (0, 1, 3, 5, 255)),
    "qform_code": (252, "h", (1, -1, 9)),
    "sform_code": (254, "h", (0, -1, 9)),
    "quatern_b": (256, "f", (2.0, float("nan"), 1e30)),
    "srow_x": (280, "f", (0.0, float("nan"), float("inf"), 1e30, 5e6)),
    "magic": (344, "i", (0, 0x0031696E, -1)),
}
CONTENTS = {
    "empty": b"",
    "text": b"a line of text\n" * 40,
    "html": b"<!DOCTYPE html><html><body>404</body></html>" * 20,
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    "annex": b"/annex/objects/MD5E-s12345--0123456789abcdef0123456789abcdef.nii.gz\n",
    "zip": b"PK\x03\x04" + bytes(1000),
    "zeros": bytes(5000),
    "noise": np.random.default_rng(1).bytes(3000),
}


class Damaged(NamedTuple):
    """Hold a damaged scan.

    Args:
        path: file, or folder of a DICOM series.
        whole: whether reading must give the original voxels or an error.
    """

    path: Path
    whole: bool


def nifti(array: np.ndarray = VOLUME, affine: np.ndarray = AFFINE) -> bytes:
    """Return the bytes of a NIfTI file with the given affine as sform and AFFINE as qform."""
    content = nib.Nifti1Image(array, AFFINE, dtype=array.dtype).to_bytes()
    with np.errstate(over="ignore"):
        return content[:280] + affine[:3].astype("<f4").tobytes() + content[328:]


def text_header(kind: str, array: np.ndarray = VOLUME) -> tuple[list[str], bytes]:
    """Return the lines of a MetaImage or NRRD header, and its voxels."""
    sizes = " ".join(map(str, array.shape))
    voxels = array.tobytes(order="F")
    if kind == "mha":
        return [
            "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
            "TransformMatrix = 1 0 0 0 -1 0 0 0 1", "Offset = -11 7 3", "ElementSpacing = 2 2.5 4",
            f"DimSize = {sizes}", "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
        ], voxels  # fmt: skip
    return [
        "NRRD0004", "type: int16", "dimension: 3", "space: left-posterior-superior", f"sizes: {sizes}",
        "space directions: (2,0,0) (0,-2.5,0) (0,0,4)", "kinds: domain domain domain", "endian: little",
        "encoding: raw", "space origin: (-11,7,3)",
    ], voxels  # fmt: skip


def joined(kind: str, lines: list[str], voxels: bytes) -> bytes:
    """Return the bytes of a MetaImage or NRRD file."""
    return "\n".join(lines).encode() + (b"\n\n" if kind == "nrrd" else b"\n") + voxels


def stream_damage(rng: np.random.Generator, content: bytes, how: str) -> bytes:
    """Return content with one fault in the stream: cut, flip, hole, surplus or shift."""
    place = int(rng.integers(1, len(content)))
    if how == "cut":
        return content[:place]
    if how == "flip":
        return content[:place] + bytes([content[place] ^ 1 << int(rng.integers(8))]) + content[place + 1 :]
    if how == "hole":
        return content[:place] + bytes(min(200, len(content) - place)) + content[place + 200 :]
    if how == "surplus":
        return content + rng.bytes(int(rng.integers(1, 300)))
    assert how == "shift"
    return rng.bytes(7) + content


def values() -> dict[str, np.ndarray]:
    """Return arrays with unusual types, shapes and values."""
    noise = np.random.default_rng(3).normal(0, 300, SHAPE)
    odd = {name: noise.astype(np.float32) for name in ("nan", "inf", "far", "all_nan")}
    odd["nan"][2, 3, :4], odd["inf"][1, 1, 1], odd["far"][4:6] = np.nan, np.inf, 1e30
    odd["all_nan"][:] = np.nan
    return {
        **odd,
        "double": np.where(noise > 900, 1e300, noise),
        "constant": np.full(SHAPE, 5, np.int16),
        "complex": noise.astype(np.complex64),
        "colour": np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        "uint64": np.full(SHAPE, 2**63, np.uint64) + np.arange(960, dtype=np.uint64).reshape(SHAPE),
        "plane": VOLUME[:, :, 0],
        "thin": VOLUME[:, :, :1],
        "five": np.zeros((4, 4, 4, 2, 3), np.int16),
        "four": np.stack([VOLUME, VOLUME], 3),
    }


def geometries() -> dict[str, np.ndarray]:
    """Return affines that are unusual, singular or not finite."""
    odd = {}
    for name, spacing in {"far": 5e6, "large": 5000.0, "tiny": 1e-7, "flat": 0.0, "endless": np.inf}.items():
        odd[name] = AFFINE.copy()
        odd[name][0, 0] = spacing
    odd["parallel"] = AFFINE[:, [0, 0, 2, 3]]
    odd["sheared"] = AFFINE + np.array([[0, 0, 1.5, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    odd["remote"] = AFFINE + np.array([[0, 0, 0, 1e12], [0] * 4, [0] * 4, [0] * 4])
    odd["nowhere"] = AFFINE * np.nan
    return odd


def damaged_files(folder: Path, count: int, seed: int = 0) -> list[Damaged]:
    """Write ``count`` damaged NIfTI, MetaImage and NRRD files into a folder.

    Args:
        folder: folder to write to.
        count: number of files.
        seed: seed of the random damage.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, tuple[bytes, bool]] = {}
    packed = gzip.compress(nifti(), mtime=0)
    fields = [(name, value) for name, (*_, some) in FIELDS.items() for value in some]
    for number, (name, value) in enumerate(fields):
        place, form, _ = FIELDS[name]
        content = bytearray(nifti())
        struct.pack_into(f"<{form}", content, place, value)
        made[f"{name}_{number}.nii"] = bytes(content), False
    for kind in ("nii.gz", "nii", "mha", "nrrd"):
        for name, content in CONTENTS.items():
            made[f"{name}_{kind[:3]}.{kind}"] = content, False
    made["packed.nii"], made["unpacked.nii.gz"] = (packed, True), (nifti(), True)
    made["twice.nii.gz"] = gzip.compress(packed, mtime=0), False
    made |= {f"value_{name}.nii.gz": (gzip.compress(nifti(array)), False) for name, array in values().items()}
    made |= {f"place_{name}.nii": (nifti(affine=affine), False) for name, affine in geometries().items()}
    for kind in ("mha", "nrrd"):
        lines, voxels = text_header(kind)
        for at in range(len(lines)):
            made[f"without_{kind}_{at}.{kind}"] = joined(kind, lines[:at] + lines[at + 1 :], voxels), False
            mark = " = " if kind == "mha" else ": "
            key, _, old = lines[at].partition(mark)
            parts = old.split(" ")
            parts[int(rng.integers(len(parts)))] = NUMBERS[int(rng.integers(len(NUMBERS)))]
            changed = [*lines[:at], f"{key}{mark}{' '.join(parts)}", *lines[at + 1 :]]
            made[f"changed_{kind}_{at}.{kind}"] = joined(kind, changed, voxels), False
    number = 0
    while len(made) < count:
        number += 1
        how = ("cut", "flip", "hole", "surplus", "shift")[number % 5]
        kind = ("nii.gz", "mha", "nii.gz", "nrrd", "nii")[int(rng.integers(5))]
        content = {"nii.gz": packed, "nii": nifti()}.get(kind) or joined(kind, *text_header(kind))
        # no reader can detect a change in voxels without a checksum
        whole = how in ("cut", "surplus") or kind == "nii.gz"
        made[f"{how}_{number}.{kind}"] = stream_damage(rng, content, how), whole
    names = [*made][:count]
    for name in names:
        (folder / name).write_bytes(made[name][0])
    return [Damaged(folder / name, made[name][1]) for name in names]


def _shown_inverted(header: Any, k: int) -> None:
    header.PhotometricInterpretation = "MONOCHROME1"


def damaged_series(folder: Path, write: Callable[..., Path], seed: int = 0) -> list[Damaged]:
    """Write damaged DICOM series, each into a separate folder.

    Args:
        folder: folder to write to.
        write: function ``tests.dicom_series.write_series``.
        seed: seed of the random damage.
    """
    rng = np.random.default_rng(seed)
    changes: dict[str, Callable] = {}
    for key, given in {
        "Rows": (0, 60000, 11), "Columns": (60000, 3), "BitsAllocated": (8, 32, 0), "BitsStored": (0, 12, 40),
        "PixelSpacing": (["0", "0"], ["2.5", "1e30"], ["2.5"]), "SamplesPerPixel": (3, 0),
        "ImagePositionPatient": (["0", "0", "0"], ["1", "2"], ["1", "2", "1e30"]),
        "ImageOrientationPatient": (["1", "0", "0", "1", "0", "0"], ["0"] * 6),
        "PhotometricInterpretation": ("RGB", "MONOCHROME1", "PALETTE COLOR"), "NumberOfFrames": (2,),
        "RescaleSlope": ("0", "1e30"), "RescaleIntercept": ("-1e30",),
    }.items():  # fmt: skip
        changes[f"without_{key}"] = lambda header, k, key=key: delattr(header, key) if key in header else None
        for number, value in enumerate(given):
            changes[f"{key}_{number}"] = lambda header, k, key=key, value=value: setattr(header, key, value)
            changes[f"{key}_{number}_once"] = lambda header, k, key=key, value=value: (
                setattr(header, key, value) if k == 3 else None
            )
    found = []
    for name, change in changes.items():

        def apply(header: Any, k: int, change: Callable = change) -> None:
            header["PixelData"].VR = "OW"  # pydicom would guess it from header values that change
            change(header, k)

        found.append(Damaged(write(folder / f"series_{name}", VOLUME, AFFINE, apply), False))
    found.append(Damaged(write(folder / "series_MONOCHROME1", VOLUME, AFFINE, _shown_inverted), True))
    for number in range(12):
        series = write(folder / f"series_stream_{number}", VOLUME, AFFINE)
        slices = sorted(series.iterdir())
        one = slices[int(rng.integers(len(slices)))]
        how = ("cut", "lost", "twice", "other")[number % 4]
        if how == "cut":
            one.write_bytes(stream_damage(rng, one.read_bytes(), "cut"))
        elif how == "lost":
            slices[3].unlink()
        elif how == "twice":
            (series / "again").write_bytes(one.read_bytes())
        else:
            one.write_bytes(CONTENTS[("html", "empty", "noise")[number % 3]])
        found.append(Damaged(series, how == "cut"))
    return found
