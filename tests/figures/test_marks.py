"""Test that unchanged pictures of this project are replaced and that other files are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.figures.marks import check_png, is_own_png, save_png

FOREIGN = r": another file of this name, or one that was changed since it was written; move it away"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return drawn(tmp_path / "new" / "picture.png", 2)


def drawn(path: Path, inches: float) -> Path:
    figure = pytest.importorskip("matplotlib.figure")
    return save_png(figure.Figure((inches, inches)), path)


def test_marked_picture_can_be_read(picture: Path) -> None:
    image = pytest.importorskip("matplotlib.image").imread(picture)
    assert image.shape[:2] == (220, 220)
    assert pytest.importorskip("PIL.Image").open(picture).text["sha256"]


def test_unchanged_picture_is_replaced(picture: Path) -> None:
    before = picture.read_bytes()
    moved = picture.rename(picture.with_name("moved.png"))
    assert drawn(moved, 3).read_bytes() != before
    assert is_own_png(moved)


@pytest.mark.parametrize("place", [0, 20, 300, -100, -60, -20, -1])
def test_changed_picture_is_kept(picture: Path, place: int) -> None:
    content = bytearray(picture.read_bytes())
    content[place] ^= 1
    picture.write_bytes(content)
    with pytest.raises(InputError, match=rf"picture\.png{FOREIGN}"):
        drawn(picture, 3)
    assert picture.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"my notes", bytes(200)])
def test_file_without_a_mark_is_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png{FOREIGN}"):
        check_png(tmp_path / "a.png")


def test_picture_needs_a_name_with_png(tmp_path: Path) -> None:
    check_png(tmp_path / "a.PNG")
    with pytest.raises(InputError, match=r"figure1: expected the name of a picture to write, which ends with \.png"):
        check_png(tmp_path / "figure1")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: a folder, expected the name of a file"):
        check_png(tmp_path / "folder.png")
    with pytest.raises(InputError, match=r"a\.png: a file, expected a folder"):
        (tmp_path / "a.png").touch()
        check_png(tmp_path / "a.png" / "b.png")


def test_link_to_another_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "missing.png")
    with pytest.raises(InputError, match=rf"link\.png{FOREIGN}"):
        check_png(tmp_path / "link.png")


def test_missing_matplotlib_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"drawing needs matplotlib, which is not installed; pip install matplotlib"):
        check_png(tmp_path / "picture.png")
