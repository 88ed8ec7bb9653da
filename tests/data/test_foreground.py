"""Test data sets in which no label has foreground."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from common.data import check_foreground
from common.errors import InputError


@pytest.fixture
def cases(write_nifti: Callable) -> Callable[[int, int | None], list[dict]]:
    def make(count: int, filled: int | None) -> list[dict]:
        made = []
        for i in range(count):
            label = np.zeros((4, 5, 6), np.uint8)
            label[1, 2, 3] = i == filled
            made.append({"case": f"P{i}", "label": str(write_nifti(f"P{i}_seg.nii.gz", label))})
        return made

    return make


@pytest.mark.parametrize("filled", [0, 1, 3])
def test_one_label_with_foreground_suffices(cases: Callable, filled: int, caplog: pytest.LogCaptureFixture) -> None:
    check_foreground(cases(4, filled), "training")
    assert not caplog.text


def test_empty_labels_alone_are_an_error_or_a_warning(cases: Callable, caplog: pytest.LogCaptureFixture) -> None:
    empty = cases(3, None)
    with pytest.raises(InputError, match=r"^validation list: the labels of all 3 cases are empty, such as .*P0_seg"):
        check_foreground(empty, "validation")
    check_foreground(empty, "validation", needed=False)
    assert "validation list: the labels of all 3 cases are empty" in caplog.text


def test_labels_are_read_until_one_has_foreground(cases: Callable) -> None:
    first = cases(2, 0)
    check_foreground([first[0], {"case": "gone", "label": "gone.nii.gz"}], "training")
    check_foreground([{"image": 1}], "training")  # of a program, without files
