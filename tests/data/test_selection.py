from __future__ import annotations

import pytest

from common.data.selection import select_cases
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
