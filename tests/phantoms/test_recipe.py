from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.errors import InputError

from .checks import assert_seed_decides, make
from .recipes import Ball, SortedBall


def test_a_seed_determines_the_case() -> None:
    assert_seed_decides(Ball())
    assert_seed_decides(SortedBall(), "green")


def test_a_modality_is_the_same_alone_and_among_others() -> None:
    case, alone = make(Ball(), 3), make(replace(Ball(), modalities=["B"]), 3)
    assert list(alone.images) == ["B"]
    np.testing.assert_array_equal(alone.images["B"], case.images["B"])


@pytest.mark.parametrize("modalities", [("A", "C"), ("A", "A"), ()])
def test_unknown_repeated_or_no_modalities_are_refused(modalities: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"modalities .*: expected at least one of A, B"):
        Ball(modalities=modalities)


@pytest.mark.parametrize(("size", "spacing"), [((12, 10, 5), (4.0, 4.0, 5.0)), ((12, 10), (4.0, 4.0))])
def test_a_small_field_of_view_is_refused(size: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"size .* with spacing .*: expected .* at least 40 x 40 x 30 mm"):
        Ball(size=size, spacing=spacing)


def test_another_class_is_refused() -> None:
    for name in (None, "black"):
        with pytest.raises(InputError, match=f"class {name}: expected one of red, green, blue"):
            make(SortedBall(), 0, name)
    with pytest.raises(InputError, match="class red: expected None, since this phantom has no classes"):
        make(Ball(), 0, "red")
