"""A result is known again as this project's while nobody changed it, and nothing else is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import InputError
from common.reporting import check_table, read_scores, write_class_scores, write_scores
from common.reporting.marks import check_png, is_own_png, save_png

FOREIGN = r": another file of this name, or one that was changed since it was written; move it away"
ROWS = [{"case": "a", "Dice": 0.5}]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return drawn(tmp_path / "new" / "picture.png", 2)


def drawn(path: Path, inches: float) -> Path:
    figure = pytest.importorskip("matplotlib.figure")
    return save_png(figure.Figure((inches, inches)), path)


def test_a_marked_picture_is_a_picture(picture: Path) -> None:
    image = pytest.importorskip("matplotlib.image").imread(picture)
    assert image.shape[:2] == (220, 220)
    assert pytest.importorskip("PIL.Image").open(picture).text["sha256"]


def test_an_own_picture_is_drawn_again(picture: Path) -> None:
    before = picture.read_bytes()
    moved = picture.rename(picture.with_name("moved.png"))
    assert drawn(moved, 3).read_bytes() != before
    assert is_own_png(moved)


@pytest.mark.parametrize("place", [0, 20, 300, -100, -60, -20, -1])
def test_a_picture_with_another_byte_is_kept(picture: Path, place: int) -> None:
    content = bytearray(picture.read_bytes())
    content[place] ^= 1
    picture.write_bytes(content)
    with pytest.raises(InputError, match=rf"picture\.png{FOREIGN}"):
        drawn(picture, 3)
    assert picture.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"my notes", bytes(200)])
def test_another_file_is_no_own_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.png{FOREIGN}"):
        check_png(tmp_path / "a.png")


def test_a_picture_needs_a_name_of_its_kind(tmp_path: Path) -> None:
    check_png(tmp_path / "a.PNG")
    with pytest.raises(InputError, match=r"figure1: expected the name of a picture to write, which ends with \.png"):
        check_png(tmp_path / "figure1")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png: a folder, expected the name of a file"):
        check_png(tmp_path / "folder.png")
    with pytest.raises(InputError, match=r"a\.png: a file, expected a folder"):
        (tmp_path / "a.png").touch()
        check_png(tmp_path / "a.png" / "b.png")


def test_a_link_to_another_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "missing.png")
    with pytest.raises(InputError, match=rf"link\.png{FOREIGN}"):
        check_png(tmp_path / "link.png")


def test_tables_of_one_maker_are_written_again(tmp_path: Path) -> None:
    for dice in (0.5, 0.25):
        write_scores([{"case": "a", "Dice": dice}], tmp_path / "scores.csv", {"weights": "1234"})
        write_class_scores({"accuracy": dice}, tmp_path / "class_scores.csv", {"weights": "1234"})
    assert read_scores(tmp_path / "scores.csv")[0]["Dice"] == 0.25
    noted = json.loads((tmp_path / "made_by.json").read_text())["tables"]
    assert {name: table["made_by"] for name, table in noted.items()} == {
        "scores.csv": {"weights": "1234"},
        "class_scores.csv": {"weights": "1234"},
    }


@pytest.mark.parametrize(
    ("made_by", "shown"),
    [
        ({"weights": "0" * 64, "network": "A"}, rf"weights {'1' * 16}\.\.\., this run has {'0' * 16}\.\.\."),
        ({"weights": "1" * 64, "network": "B"}, "network A, this run has B"),
        ({"weights": "1" * 64}, "network A, this run has nothing"),
        (None, "weights 1{16}..., this run has nothing"),
    ],
)
def test_a_table_of_another_maker_is_kept(tmp_path: Path, made_by: dict | None, shown: str) -> None:
    write_scores(ROWS, tmp_path / "scores.csv", {"weights": "1" * 64, "network": "A"})
    before = (tmp_path / "scores.csv").read_bytes()
    with pytest.raises(InputError, match=rf"scores\.csv: made by another run \({shown}\); choose another folder"):
        write_scores([{"case": "a", "Dice": 0.75}], tmp_path / "scores.csv", made_by)
    assert (tmp_path / "scores.csv").read_bytes() == before


@pytest.mark.parametrize("name", ["scores.csv", "made_by.json"])
@pytest.mark.parametrize("before", ["nothing", "own"])
def test_a_users_table_or_record_is_kept(tmp_path: Path, name: str, before: str) -> None:
    if before == "own":
        write_scores(ROWS, tmp_path / "scores.csv")
    with (tmp_path / name).open("a") as file:
        file.write("\nreader,case,opinion\n")
    content = (tmp_path / name).read_bytes()
    for write in (check_table, lambda path: write_scores(ROWS, path)):
        with pytest.raises(InputError, match=name.replace(".", r"\.") + FOREIGN):
            write(tmp_path / "scores.csv")
    assert (tmp_path / name).read_bytes() == content
