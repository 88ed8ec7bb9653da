from __future__ import annotations

from pathlib import Path

import pytest

from common.data.selection import fixed_test_set, select_cases
from common.errors import InputError

CASES = [{"case": name} for name in ("P1", "P2", "007", "12", "P5", "P6")]


@pytest.mark.parametrize(
    ("names", "limit", "expected"),
    [
        (None, None, "P1 P2 007 12 P5 P6"),
        ("12,P1", None, "P1 12"),
        (["12", "P1", "P1"], None, "P1 12"),
        (" P2 , 007 ", None, "P2 007"),
        (None, 2, "P1 P2"),
        (None, 100, "P1 P2 007 12 P5 P6"),
        ("12,P1", 1, "P1"),
    ],
)
def test_cases_are_taken_in_their_own_order(names: str | list[str] | None, limit: int | None, expected: str) -> None:
    assert [case["case"] for case in select_cases(CASES, names, limit, "a list")] == expected.split()


def test_unknown_names_are_listed_with_the_first_known_ones() -> None:
    with pytest.raises(InputError) as error:
        select_cases(CASES, "P1,7,nobody,7", 1, "a list")
    assert str(error.value) == "--cases 7,nobody: no such case in a list, which has 6: P1, P2, 007, 12, P5, ..."


LIVERS = [{"case": f"volume-{n}"} for n in range(1, 131)]


def test_the_published_test_set_of_livers_is_one_range() -> None:
    """Expect the 20 cases of MPU-Net's Table 8."""
    assert [case["case"] for case in fixed_test_set(LIVERS, "27-46")] == [f"volume-{n}" for n in range(27, 47)]


def test_a_fixed_test_set_is_named_or_in_a_file(tmp_path: Path) -> None:
    cases = [{"case": name} for name in ("P1", "P2", "27-46", "C46")]
    assert fixed_test_set(cases, "P2, P1") == cases[:2]
    assert fixed_test_set(cases, "27-46") == [cases[2]]  # a name comes before a range
    (tmp_path / "test.txt").write_text("P1\n\nC46\n")
    assert fixed_test_set(cases, str(tmp_path / "test.txt")) == [cases[0], cases[3]]


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("120-140", "--test 120-140: found 11 cases, expected 21; the 130 cases are volume-1, volume-2,"),
        ("46-27", "--test 46-27: expected the lower number first, 27-46"),
        (" ,", "--test  ,: names no case"),
        ("volume-27,P1", "--test P1: found 0 cases, expected 1"),
        ("missing.txt", "--test missing.txt: cannot be read"),
    ],
)
def test_a_wrong_test_set_is_refused(test: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fixed_test_set(LIVERS, test)


def test_an_empty_file_is_no_test_set(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(InputError, match=r"test.txt: names no case"):
        fixed_test_set(LIVERS, str(tmp_path / "test.txt"))


def test_a_patient_is_in_or_outside_of_the_test_set() -> None:
    cases = [{"case": name, "patient": name[0]} for name in ("A1", "A2", "B1")]
    assert fixed_test_set(cases, "A1,A2") == cases[:2]
    with pytest.raises(InputError, match="--test: A1, but not A2 of the same patient A; name all cases"):
        fixed_test_set(cases, "A1")
