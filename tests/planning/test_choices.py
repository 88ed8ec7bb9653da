from __future__ import annotations

import numpy as np
import pytest

from common.planning.choices import Cost, choose_patch


@pytest.mark.parametrize(
    ("shape", "expected"), [((16, 16, 16), [24, 16, 16]), ((200, 200, 200), [24, 16, 16]), ((8, 16, 16), [8, 16, 16])]
)
def test_a_patch_never_has_two_coarsest_voxels_along_x(shape: tuple[int, ...], expected: list[int]) -> None:
    patch, _, _ = choose_patch(np.array(shape), [8, 8, 8], 2, 1.0, lambda patch, batch: Cost(2.0, 2))
    assert patch.value == expected
