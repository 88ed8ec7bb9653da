"""Test what the headers of MetaImage and NRRD must have, and what is refused before ITK reads a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common import memory
from common.data.volumes import read_grid, read_volume
from common.errors import InputError
from common.memory import Memory

from ..damaged import AFFINE, VOLUME, joined, text_header

pytest.importorskip("itk", reason="these formats need itk")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with

Change = Callable[[list[str]], list[str]]


def write(folder: Path, kind: str, change: Change = lambda lines: lines, voxels: bytes | None = None) -> Path:
    lines, whole = text_header(kind)
    (folder / f"a.{kind}").write_bytes(joined(kind, change(lines), whole if voxels is None else voxels))
    return folder / f"a.{kind}"


def replaced(old: str, new: str) -> Change:
    return lambda lines: "\n".join(lines).replace(old, new).split("\n")


@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_voxels_and_place_are_those_of_the_header(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    array, affine = read_volume(path)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(affine, AFFINE)
    shape, grid = read_grid(path)
    assert shape == VOLUME.shape
    np.testing.assert_allclose(grid, AFFINE)
    assert read_volume(path, integers=True)[0].dtype == np.int16


@pytest.mark.parametrize(
    ("name", "signs"), [("right-anterior-superior", (-1, -1)), ("left-anterior-superior", (1, -1))]
)
def test_the_spaces_of_nrrd_are_turned(tmp_path: Path, name: str, signs: tuple[int, int]) -> None:
    _, affine = read_volume(write(tmp_path, "nrrd", replaced("left-posterior-superior", name)))
    np.testing.assert_allclose(affine[:2], np.diag(signs) @ AFFINE[:2])


def test_a_single_layer_is_a_volume(tmp_path: Path) -> None:
    def one_layer(lines: list[str]) -> list[str]:
        text = "\n".join(lines).replace("dimension: 3", "dimension: 4").replace("sizes: ", "sizes: 1 ")
        text = text.replace("directions: ", "directions: none ").replace("kinds: ", "kinds: list ")
        return text.split("\n")

    array, affine = read_volume(write(tmp_path, "nrrd", one_layer))
    np.testing.assert_array_equal(array, VOLUME)
    np.testing.assert_allclose(affine, AFFINE)
    two = write(tmp_path, "nrrd", lambda lines: replaced("sizes: 1 12 10 8", "sizes: 2 12 10 4")(one_layer(lines)))
    with pytest.raises(InputError, match=r"a\.nrrd: 2 values in each voxel \(layers, vectors or colours\)"):
        read_volume(two)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("mha", replaced("ElementSpacing = 2 2.5 4\n", ""), "ElementSpacing is missing, expected 3 finite numbers"),
        ("mha", replaced("Offset = -11 7 3", "Offset = -11 nan 3"), "Offset is -11 nan 3, expected 3 finite numbers"),
        ("mha", replaced("NDims = 3", "NDims = -1"), "NDims is -1, expected 3 or 4"),
        ("mha", replaced("MSB = False", "MSB = 0"), "BinaryDataByteOrderMSB is 0, expected True or False"),
        ("nrrd", replaced("space origin: (-11,7,3)", "number: 1"), "space origin missing in its header"),
        ("nrrd", replaced("left-posterior-superior", "scanner-xyz"), r"space \(scanner-xyz found\) missing"),
        ("nrrd", replaced("sizes: 12 10 8", "sizes: 12 10 0"), "the header is damaged or not supported by ITK"),
        ("nrrd", replaced("12 10 8", "20000 20000 20000"), "truncated, or its header is wrong: 20000 x 20000"),
    ],
)
def test_a_header_that_does_not_say_it_is_refused(tmp_path: Path, kind: str, change: Change, message: str) -> None:
    path = write(tmp_path, kind, change)
    for read in (read_volume, read_grid):
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_voxels_that_are_cut_are_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, voxels=VOLUME.tobytes(order="F")[:-2])
    with pytest.raises(InputError, match=rf"a\.{kind}: truncated, .* voxels need 1920 bytes, but .* has 1918 bytes"):
        read_volume(path)


def test_memory_is_asked_for_before_voxels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(4000, 10**9))
    with pytest.raises(InputError, match=r"a\.mha: reading 12 x 10 x 8 voxels needs 7680 bytes .* 4000 bytes are free"):
        read_volume(write(tmp_path, "mha"))
