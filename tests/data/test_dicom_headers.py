"""Test which entries of a DICOM header are read, and which are refused before pixels are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import memory
from common.data.volumes import read_grid, read_volume
from common.errors import InputError
from common.memory import Memory

from ..dicom_series import pydicom, write_series

pytest.importorskip("itk", reason="DICOM needs itk")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the wrappers that itk is made with
    pytest.mark.filterwarnings("ignore:Unknown encoding"),  # pydicom's
]

AFFINE = np.array([[-2.0, 0, 0, 11], [0, -2.5, 0, 7], [0, 0, 4.0, 3], [0, 0, 0, 1]])


def series(folder: Path, volume: np.ndarray, **values: Any) -> Path:
    def change(header: Any, k: int) -> None:
        header["PixelData"].VR = "OW"  # which pydicom finds by values that change
        for keyword, value in values.items():
            setattr(header, keyword, value(k) if callable(value) else value)

    return write_series(folder / "P1", volume, AFFINE, change)


@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("kind", "stored", "low", "high", "signed"),
    [("u2", 16, 0, 60000, 0), ("u2", 12, 0, 4096, 0), ("i2", 16, -2000, 3000, 1), ("u1", 8, 0, 256, 0)],
)
def test_how_an_image_is_shown_leaves_its_values(
    tmp_path: Path, shown: str, kind: str, stored: int, low: int, high: int, signed: int
) -> None:
    volume = np.random.default_rng(0).integers(low, high, (6, 5, 4))
    values = {
        "PhotometricInterpretation": shown, "BitsAllocated": 8 * int(kind[1]), "BitsStored": stored,
        "HighBit": stored - 1, "PixelRepresentation": signed, "RescaleIntercept": "-1000",
        "RescaleSlope": lambda k: str(1 + k), "PixelData": lambda k: volume[:, :, k].T.astype(f"<{kind}").tobytes(),
    }  # fmt: skip
    array, affine = read_volume(series(tmp_path, volume.astype(np.int16), **values))
    np.testing.assert_array_equal(array, volume * np.arange(1, 5) - 1000)
    np.testing.assert_allclose(affine, AFFINE)


@pytest.mark.parametrize("columns", [6, 600], ids=["small", "large"])
def test_the_grid_is_read_without_pixels(tmp_path: Path, columns: int) -> None:
    path = series(tmp_path, np.zeros((columns, 5, 4), np.int16))
    shape, affine = read_grid(path)
    assert shape == (columns, 5, 4)
    np.testing.assert_allclose(affine, AFFINE)
    (path / "IM002").write_bytes((path / "IM002").read_bytes()[:-1])
    with pytest.raises(InputError, match="IM002: truncated within its pixels"):
        read_grid(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Rows": 4}, "IM001: 60 bytes of pixels, expected 48 bytes from Rows, Columns and BitsAllocated"),
        ({"Rows": 60000}, "IM001: 60 bytes of pixels, expected 720000 bytes"),
        ({"BitsAllocated": 12}, "IM001: BitsAllocated 12 and BitsStored 16 in its header, expected 8, 16 or 32"),
        ({"BitsStored": 0}, "IM001: BitsAllocated 16 and BitsStored 0"),
        ({"RescaleSlope": "0"}, "IM001: RescaleSlope 0 "),
        ({"BitsStored": 12}, "IM001: HighBit 15 and BitsStored 12 in its header, expected HighBit 11"),
        ({"PixelSpacing": ["-1", "1"]}, "IM001 has no valid slice position"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "IM001 is a colour image"),
    ],
)
def test_a_header_that_does_not_fit_its_pixels(tmp_path: Path, values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_volume(series(tmp_path, np.zeros((6, 5, 4), np.int16), **values))


def test_a_table_of_values_is_refused(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.ModalityLUTType = "HU"
    table.add_new("LUTDescriptor", "US", [4, 0, 16])
    table.add_new("LUTData", "OW", np.array([-1000, 0, 40, 300], "<i2").tobytes())
    values = {"RescaleSlope": None, "RescaleIntercept": None, "ModalityLUTSequence": [table]}
    with pytest.raises(InputError, match="IM001: its values are in a Modality LUT Sequence"):
        read_volume(series(tmp_path, np.zeros((6, 5, 4), np.int16), **values))


def test_memory_is_asked_for_before_pixels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = series(tmp_path, np.zeros((6, 5, 4), np.int16))
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(900, 10**9))
    with pytest.raises(InputError, match=r"P1: reading 6 x 5 x 4 voxels needs 960 bytes .* 900 bytes are free"):
        read_volume(path)


@pytest.mark.parametrize(
    ("names", "raw", "text"),
    [
        ("ISO_IR 100", "Schädel".encode("latin-1"), "Schädel"),
        ("ISO_IR 144", "Голова".encode("iso8859-5"), "Голова"),
        ("ISO_IR 192", "頭部".encode(), "頭部"),
        ("GB18030", "头部".encode("gb18030"), "头部"),
        ("\\ISO 2022 IR 87", "頭部".encode("iso2022_jp"), "頭部"),
        ("no such set", b"\xe4\xff head", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} head"),
    ],
)
def test_a_text_is_shown_in_its_own_characters(tmp_path: Path, names: str, raw: bytes, text: str) -> None:
    folder = series(tmp_path, np.zeros((6, 5, 4), np.int16), SeriesDescription="#" * 20)
    for number, path in enumerate(sorted(folder.iterdir())):
        content = path.read_bytes().replace(b"ISO_IR 100", names.encode()[:10].ljust(10))
        if len(names) > 10:
            at = content.index(b"\x08\x00\x05\x00CS")
            content = content[: at + 6] + (16).to_bytes(2, "little") + names.encode().ljust(16) + content[at + 18 :]
        content = content.replace(b"#" * 20, raw.ljust(20))
        if number == 0:  # a second series, so that both are named
            uid = content.index(b"\x20\x00\x0e\x00UI") + 8
            content = content[:uid] + b"9" + content[uid + 1 :]
        path.write_bytes(content)
    with pytest.raises(InputError, match="2 DICOM series") as error:
        read_volume(folder)
    assert f"CT '{text}', 1 image such as IM001" in str(error.value)


def test_a_slice_that_lost_its_mark_is_not_left_out(tmp_path: Path) -> None:
    folder = series(tmp_path, np.zeros((6, 5, 4), np.int16))
    (folder / "notes").write_text("of the scanner")
    assert read_volume(folder)[0].shape == (6, 5, 4)
    (folder / "IM001").write_bytes(b"")
    with pytest.raises(InputError, match="IM001: not a DICOM image, or damaged"):
        read_volume(folder)


def test_reading_dicom_without_pydicom_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.dicom.has_pydicom", False)
    with pytest.raises(InputError, match=r"needs the packages itk and pydicom \(pip install itk pydicom\)"):
        read_volume(series(tmp_path, np.zeros((6, 5, 4), np.int16)))
