"""Read and write .nii.gz with isal or with Python's own gzip."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from common.data.volumes import read_volume
from common.errors import InputError

from .volumes import MASK, VOLUMES, Write, load, save

LIBRARIES = {"gzip": "zlib", "isal.igzip": "isal.isal_zlib"}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = pytest.importorskip(request.param, reason="isal is optional")
    monkeypatch.setattr("common.data.nifti_writer.gzip", module)
    monkeypatch.setattr("common.data.content.inflate", pytest.importorskip(LIBRARIES[request.param]))
    return module


OBLIQUE = np.array([[0.0, -2, 0.3, 5], [1.5, 0, 0, 6], [0, 0.4, 3, 7], [0, 0, 0, 1]])


def test_either_library_reads_what_anyone_wrote(write_nifti: Write, library: ModuleType) -> None:
    image = load(write_nifti("a.nii.gz", VOLUMES[0], OBLIQUE), ["CT"])
    np.testing.assert_array_equal(image[0].numpy(), VOLUMES[0])
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_anyone_reads_what_either_library_wrote(tmp_path: Path, library: ModuleType) -> None:
    path = save(tmp_path, MASK, affine=OBLIQUE)
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), MASK)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    assert gzip.decompress(path.read_bytes())[344:348] == b"n+1\0"
    np.testing.assert_array_equal(load(path, ["mask"])[0].numpy(), MASK)


def test_a_file_of_several_members_is_read_to_its_end(write_nifti: Write, library: ModuleType) -> None:
    """As tools write that compress in parallel."""
    content = write_nifti("a.nii", VOLUMES[0]).read_bytes()
    parts = write_nifti("b.nii.gz", VOLUMES[1])
    parts.write_bytes(b"".join(gzip.compress(content[i : i + 200]) for i in range(0, len(content), 200)))
    np.testing.assert_array_equal(load(parts, ["CT"])[0].numpy(), VOLUMES[0])


def test_the_same_map_is_the_same_file(tmp_path: Path, library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for hours in (0, 1):
        monkeypatch.setattr("time.time", lambda hours=hours: 1.8e9 + 3600 * hours)
        contents.append(save(tmp_path / str(hours), MASK, f"case {hours}.nii.gz").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0][4:8] == bytes(4)  # the time stamp
    other = MASK.copy()
    other[0, 0, 0] += 1
    assert save(tmp_path / "other", other).read_bytes() != contents[0]


def test_a_wrong_check_sum_at_the_end_is_refused(write_nifti: Write, library: ModuleType) -> None:
    path = write_nifti("a.nii.gz", VOLUMES[0])
    whole = path.read_bytes()
    for place in range(1, 9):  # four bytes of the check sum, four of the length
        broken = bytearray(whole)
        broken[-place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.nii\.gz: not a complete NIfTI file"):
            load(path, ["CT"])
        path.write_bytes(whole[:-place])
        with pytest.raises(InputError, match=r"a\.nii\.gz: not a complete NIfTI file"):
            load(path, ["CT"])


def test_no_damage_passes_unnoticed(write_nifti: Write, library: ModuleType) -> None:
    """Wherever a bit of the compressed file is wrong: an error, or a place that means nothing."""
    path = write_nifti("a.nii.gz", VOLUMES[0][:3, :3, :2])
    whole, expected = path.read_bytes(), read_volume(path)
    harmless = 0
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            found = read_volume(path)
        except InputError as error:
            assert str(error).startswith((f"{path}: not a complete NIfTI file", f"{path}: not a NIfTI file"))
            continue
        harmless += 1
        for one, other in zip(found, expected):
            np.testing.assert_array_equal(one, other)
    assert harmless < 20  # time stamp, flags and name in the head of the file


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2(tmp_path: Path, library: ModuleType, name: str, order: str) -> None:
    header = nib.Nifti2Header(endianness=order)
    header.set_data_dtype(np.int16)
    image = nib.Nifti2Image(VOLUMES[0], OBLIQUE, header)
    nib.save(image, tmp_path / name)
    found = load(tmp_path / name, ["CT"])
    np.testing.assert_array_equal(found[0].numpy(), VOLUMES[0])
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-12)  # of double precision, unlike NIfTI-1's
    assert (tmp_path / name).stat().st_size > 100
