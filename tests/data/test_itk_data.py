"""Test that the files of MetaImage and NRRD hold the voxels of their headers, wherever these files are."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from common.data.itk_data import scan_files
from common.data.volumes import read_volume
from common.doctor.cases import check_leaks
from common.doctor.findings import Findings
from common.errors import InputError
from common.record import digest_of

from ..damaged import AFFINE, VOLUME, joined, text_header

pytest.importorskip("itk", reason="these formats need itk")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with

RAW = VOLUME.tobytes(order="F")
PACKED = zlib.compress(RAW)


def write(path: Path, voxels: bytes = RAW, data: bytes | None = None, **entries: object) -> Path:
    """Write a file with its header's entries added or replaced; ``data`` goes to its separate file ``a.raw``."""
    kind = {".mhd": "mha", ".nhdr": "nrrd"}.get(path.suffix, path.suffix[1:])
    mark = " = " if kind == "mha" else ": "
    lines = dict(line.partition(mark)[::2] for line in text_header(kind)[0])
    new = {name.replace("_", " "): str(value) for name, value in entries.items()}
    if kind == "mha":
        lines = {**{n: v for n, v in lines.items() if n not in (*new, "ElementDataFile")}, **new}
        lines.setdefault("ElementDataFile", "LOCAL" if data is None else "a.raw")
    else:
        lines |= new | ({} if data is None else {"data file": "a.raw"})
    if data is not None:
        (path.parent / "a.raw").write_bytes(data)
    text = [f"{name}{mark if value else ''}{value}" for name, value in lines.items()]
    path.write_bytes(joined(kind, text, voxels if data is None else b""))
    return path


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("a.mhd", {"data": RAW}),
        ("a.mhd", {"data": b"x" * 90 + RAW, "HeaderSize": 90}),
        ("a.mhd", {"data": b"x" * 90 + RAW, "HeaderSize": -1}),
        ("a.mhd", {"data": PACKED, "CompressedData": True, "CompressedDataSize": len(PACKED)}),
        ("a.mha", {"voxels": PACKED, "CompressedData": True, "CompressedDataSize": len(PACKED)}),
        ("a.mha", {"DistanceUnits": "mm", "ElementToIntensityFunctionSlope": 1}),
        ("a.nhdr", {"data": RAW}),
        ("a.nhdr", {"data": b"x" * 90 + RAW, "byte_skip": -1}),
        ("a.nrrd", {"voxels": gzip.compress(RAW), "encoding": "gzip", "space_units": '"mm" "mm" "mm"'}),
    ],
)
def test_voxels_are_read_from_where_they_are(tmp_path: Path, name: str, entries: dict) -> None:
    array, affine = read_volume(write(tmp_path / name, **entries))
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(affine, AFFINE)


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("a.mha", {"voxels": RAW + RAW}, "1920 bytes after the 12 x 10 x 8 voxels of its header, expected none"),
        ("a.mha", {"ElementType": "MET_UCHAR"}, "960 bytes after the 12 x 10 x 8 voxels"),
        ("a.mhd", {"data": RAW + RAW}, "1920 bytes after the 12 x 10 x 8 voxels"),
        ("a.nrrd", {"voxels": RAW + RAW}, "1920 bytes after the 12 x 10 x 8 voxels"),
        ("a.nrrd", {"voxels": gzip.compress(RAW + RAW), "encoding": "gzip"}, "1920 bytes after the 12 x 10 x 8"),
        ("a.mhd", {"data": RAW[:-9]}, "voxels need 1920 bytes, but its data files have 1911 bytes"),
        ("a.nhdr", {"data": RAW[:-9]}, "voxels need 1920 bytes, but its data files have 1911 bytes"),
        ("a.mhd", {"ElementDataFile": "gone.raw"}, "its data file .*gone.raw is missing; copy it to this place"),
        ("a.mha", {"voxels": PACKED, "CompressedData": True}, "CompressedDataSize is missing, expected"),
        (
            "a.mha",
            {"voxels": PACKED[:-40], "CompressedData": True, "CompressedDataSize": len(PACKED)},
            "its compressed voxels end too early",
        ),
        (
            "a.mha",
            {"voxels": zlib.compress(RAW[:-20]), "CompressedData": True, "CompressedDataSize": 4000},
            "voxels need 1920 bytes, but the file has 1900 bytes",
        ),
        ("a.mha", {"ElementToIntensityFunctionSlope": 2}, "Slope is 2, expected 1, because ITK does not apply it"),
        ("a.mha", {"DistanceUnits": "furlong"}, "DistanceUnits is furlong, expected one of mm, cm, m and um"),
        ("a.nrrd", {"space_units": '"mm" "mm" "s"'}, "space units is .*, expected one of mm, cm, m and um"),
        ("a.nrrd", {"space_directions": "(2,0,0) (0,-2.5,0) none"}, "expected 3 vectors, found 2"),
        ("a.mha", {"ElementSpacing": "2 0 4"}, "a spacing of 0 or directions that lie in a plane in its header"),
    ],
)
def test_voxels_that_do_not_fit_the_header_are_refused(tmp_path: Path, name: str, entries: dict, message: str) -> None:
    path = write(tmp_path / name, **entries)
    with pytest.raises(InputError, match=message) as error:
        read_volume(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("name", "entry"), [("a.mha", "DistanceUnits"), ("a.nrrd", "space_units")])
def test_another_unit_is_converted(tmp_path: Path, name: str, entry: str, caplog: pytest.LogCaptureFixture) -> None:
    unit = "cm" if name == "a.mha" else '"cm" "cm" "cm"'
    _, affine = read_volume(write(tmp_path / name, **{entry: unit}))
    np.testing.assert_allclose(affine[:3], 10 * AFFINE[:3])
    assert "converted the unit cm to mm" in caplog.text


def slices(folder: Path, count: int) -> Path:
    for k in range(count):
        (folder / f"s{k}.raw").write_bytes(VOLUME[:, :, k].tobytes(order="F"))
    names = "\n".join(f"s{k}.raw" for k in range(count))
    return write(folder / "a.mhd", voxels=names.encode() + b"\n", ElementDataFile="LIST")


def test_a_list_of_slices_is_complete_or_refused(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_volume(slices(tmp_path, 8))[0], VOLUME)
    with pytest.raises(InputError, match="voxels need 1920 bytes, but its data files have 1680 bytes"):
        read_volume(slices(tmp_path, 7))


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_the_digest_of_a_scan_counts_its_voxels(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, data=RAW)
    assert scan_files(path) == [path, tmp_path / "a.raw"]
    before = digest_of(str(path))
    write(tmp_path / name, data=RAW[::-1])
    assert digest_of(str(path)) != before
    (tmp_path / "a.raw").unlink()
    assert digest_of(str(path)) is None


def test_equal_headers_of_other_voxels_are_no_leak(tmp_path: Path) -> None:
    lists = {}
    for section, voxels in {"training": RAW, "test": RAW[::-1]}.items():
        (tmp_path / section).mkdir()
        lists[section] = [{"case": section, "image": str(write(tmp_path / section / "a.mhd", data=voxels))}]
    findings = Findings()
    check_leaks(findings, lists, by_content=True)
    assert not findings.found
    write(tmp_path / "test" / "a.mhd", data=RAW)
    check_leaks(findings, lists, by_content=True)
    assert "files with the same content" in findings.found[0].what
