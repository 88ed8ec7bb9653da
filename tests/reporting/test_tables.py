"""Test that unchanged tables of this project are replaced and that other files are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.engines.case_origin import write_case_table
from common.errors import InputError
from common.reporting import check_table, read_scores, write_class_scores, write_scores

FOREIGN = r": another file of this name, or one that was changed since it was written; move it away"
ROWS = [{"case": "a", "Dice": 0.5}]


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


def test_a_name_the_system_could_not_decode_is_written_as_utf8(tmp_path: Path) -> None:
    undecoded = "Fall_ü".encode().decode("ascii", "surrogateescape")
    write_scores([{"case": undecoded, "Dice liver": 0.5}], tmp_path / "scores.csv")
    assert read_scores(tmp_path / "scores.csv")[0]["case"] == "Fall_ü"
    own_row = {"case": undecoded, "state": "done", "input": {"files": [f"{undecoded}.nii.gz"]}}
    write_case_table([own_row], {}, tmp_path)
    assert "Fall_ü,done" in (tmp_path / "cases.csv").read_text(encoding="utf-8")
