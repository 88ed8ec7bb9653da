"""Test which unit, position, compression and length in a NIfTI header are read or refused."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common import memory
from common.data.volumes import read_grid, read_volume
from common.errors import InputError
from common.memory import Memory

VOLUME = np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)
AFFINE = np.array([[-1.5, 0, 0, 10], [0, 2, 0.1, -4], [0, 0, 4, 3], [0, 0, 0, 1.0]])


def image(affine: np.ndarray = AFFINE, unit: str | int = "mm") -> nib.Nifti1Image:
    made = nib.Nifti1Image(VOLUME, affine)
    made.header.set_xyzt_units(unit)
    return made


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), (0, 1.0), ("meter", 0.001), ("micron", 1000.0)])
def test_the_unit_of_the_header_counts(
    tmp_path: Path, unit: str | int, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    affine = AFFINE.copy()
    affine[:3] *= factor
    nib.save(image(affine, unit), tmp_path / "a.nii")
    array, found = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(found, AFFINE, rtol=1e-5)
    np.testing.assert_allclose(read_grid(tmp_path / "a.nii")[1], AFFINE, rtol=1e-5)
    assert ("converted the unit" in caplog.text) == (factor != 1)


def test_a_header_without_a_place_says_what_is_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = image(np.diag([-1.5, 2, 4, 1]))
    for set_affine in (made.set_sform, made.set_qform):
        set_affine(None, code=0)
    nib.save(made, tmp_path / "a.nii")
    _, affine = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(np.diag(affine), [-1.5, 2, 4, 1])
    assert "a.nii: neither sform nor qform is set; assumed axes to the left, anterior" in caplog.text


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_content_tells_whether_it_is_compressed(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = image().to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name == "a.nii" else content)
    array, affine = read_volume(tmp_path / name)
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(affine, AFFINE, rtol=1e-6)
    assert f"{name}: the file is" in caplog.text


@pytest.mark.parametrize("library", ["zlib", "isal.isal_zlib"])
@pytest.mark.parametrize("more", [b"\0" * 700, b"x", b"a tail of text", b"\x1f\x8b", b"\x1f\x8b\x07tail"])
def test_bytes_after_the_stream_are_left_out(
    tmp_path: Path, more: bytes, library: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("common.data.content.inflate", pytest.importorskip(library, reason="isal is optional"))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(image().to_bytes()) + more)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz")[0], VOLUME)
    assert ("ignored extra bytes after its voxels" in caplog.text) == bool(more.strip(b"\0"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer; get the file itself"),
        (b"/annex/objects/MD5E-s1--0.nii.gz\n", "a git-annex pointer"),
        (b"\n<!DOCTYPE html><html></html>", "an HTML page"),
        (b"PK\x03\x04" + bytes(400), "a zip archive"),
        (bytes(400), "zeros"),
        (bytes(128) + b"DICM" + bytes(300), "a DICOM file"),
        (gzip.compress(gzip.compress(image().to_bytes())), "compressed twice"),
        (bz2.compress(image().to_bytes()), "bzip2 data"),
        (image().to_bytes()[:380], "truncated, or its header is wrong: 7 x 6 x 5 voxels need 772 bytes"),
        (image().to_bytes()[:300], "not a NIfTI file"),
        (gzip.compress(image().to_bytes())[:-40], "not a complete NIfTI file"),
        (image().to_bytes()[:344] + b"\0\0\0\0" + image().to_bytes()[348:], "found the header of a pair"),
        (image().to_bytes() + bytes(600), "600 bytes after the 7 x 6 x 5 voxels of its header"),
    ],
)
def test_the_reason_says_what_the_file_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_volume(path)
    assert str(error.value).startswith(f"{path}: {reason}")


def test_memory_is_asked_for_before_voxels_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_nifti: Callable
) -> None:
    path = write_nifti("a.nii.gz", np.zeros((300, 200, 100), np.uint8))
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(40_000_000, 10**9))
    with pytest.raises(InputError, match=r"a\.nii\.gz: reading 300 x 200 x 100 voxels needs 48 MB .* 40 MB are free"):
        read_volume(path)
    assert read_volume(path, integers=True)[0].nbytes == 6_000_000  # in their own type
    assert read_grid(path)[0] == (300, 200, 100)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, 0), 5e6, "voxels of 5e\\+06 x .* mm, expected 0.01 to 100 mm"),
        ((1, 1), 1e30, "voxels of .* x 1e\\+30 x .* mm"),
        ((0, 0), 500.0, "voxels of 500 x .* mm"),
        ((0, 0), 0.0015, "voxels of 0.0015 x .* mm, .*; correct the spacing in the header"),
        ((2, 3), -1e12, "an origin of 1e\\+12 mm in its header, expected less than 1e\\+06 mm"),
    ],
)
def test_a_grid_that_no_scanner_makes_is_refused(
    tmp_path: Path, place: tuple[int, int], value: float, message: str
) -> None:
    affine = AFFINE.copy()
    affine[place] = value
    made = image()
    made.header["srow_x"], made.header["srow_y"], made.header["srow_z"] = affine[:3]
    (tmp_path / "a.nii").write_bytes(made.header.binaryblock + bytes(4) + VOLUME.tobytes(order="F"))
    for read in (read_volume, read_grid):
        with pytest.raises(InputError, match=rf"a\.nii: {message}"):
            read(tmp_path / "a.nii")


def test_a_link_that_is_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "gone.nii")
    with pytest.raises(InputError, match=r"a\.nii: a broken link to .*gone\.nii"):
        read_volume(tmp_path / "a.nii")


def test_no_permission_is_said(write_nifti: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti("a.nii", VOLUME)

    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    for read in (read_volume, read_grid):
        with pytest.raises(InputError, match=r"a\.nii: permission denied; let this user read the file"):
            read(path)


def test_a_pipe_is_refused_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"a\.nii: a device or a pipe, expected a file"):
        read_volume(tmp_path / "a.nii")


def patched(place: int, form: str, *values: float) -> bytes:
    content = bytearray(image().to_bytes())
    struct.pack_into(f"<{form}", content, place, *values)
    return bytes(content)


@pytest.mark.parametrize(
    ("place", "form", "values", "message"),
    [
        (112, "2f", (float("inf"), 0), "scl_slope is infinite in its header"),
        (80, "f", (0,), "pixdim 0 x 2 x 4.00125 in its header without sform, expected sizes above 0"),
    ],
)
def test_a_header_that_nibabel_would_guess_is_refused(
    tmp_path: Path, place: int, form: str, values: tuple, message: str
) -> None:
    content = bytearray(patched(place, form, *values))
    struct.pack_into("<h", content, 254, 0)  # no sform
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.nii: {message}"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(("steps", "said"), [((1.5, 2, 4), False), ((1, 1, 1), True)])
def test_pixdim_that_contradicts_the_sform_is_said(
    tmp_path: Path, steps: tuple, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray(patched(80, "3f", *steps))
    struct.pack_into("<h", content, 252, 0)  # no qform
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii")[1], AFFINE, rtol=1e-6)
    warning = "voxels of 1.5 x 2 x 4.001 mm by its sform, but 1 x 1 x 1 mm by its pixdim; the sform is used"
    assert (warning in caplog.text) == said
