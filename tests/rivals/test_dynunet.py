from __future__ import annotations

import pytest
import torch

from common.errors import InputError
from common.rivals import Rival, dynunet


@pytest.mark.parametrize(
    ("patch_size", "spacing", "strides", "kernels"),
    [
        ((40, 56, 40), (1, 1, 1), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [[3, 3, 3]] * 4),
        ((64, 64, 16), (1, 1, 1), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1], [2, 2, 1]], [[3, 3, 3]] * 5),
        (
            (64, 64, 16),
            (0.5, 0.5, 2),
            [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]],
            [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        ),
        ((64, 64, 16), (0.7, 0.7, -1), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1], [2, 2, 1]], [[3, 3, 3]] * 5),
    ],
)
def test_levels_follow_the_patch_and_the_spacing(
    patch_size: tuple[int, ...], spacing: tuple[float, ...], strides: list, kernels: list
) -> None:
    network = dynunet(1, 2, patch_size, spacing, width=2)
    assert network.strides == strides and network.kernel_size == kernels
    assert network.upsample_kernel_size == strides[1:]
    assert len(network.deep_supervision_heads) == len(strides) - 3
    with torch.no_grad():
        assert Rival(network, dense=True)(torch.zeros(1, 1, *patch_size)).shape == (1, 2, *patch_size)


def test_width_doubles_up_to_320_channels() -> None:
    assert dynunet(1, 2, (32, 32, 16), width=90).filters == [90, 180, 320, 320]


def test_without_deep_supervision_there_are_no_heads() -> None:
    assert not hasattr(dynunet(1, 2, (64, 64, 16), width=2, deep_supervision=False), "deep_supervision_heads")


def test_three_levels_have_no_head() -> None:
    assert list(Rival(dynunet(1, 2, (16, 16, 16), width=2))(torch.zeros(1, 1, 16, 16, 16))) == ["seg"]


def test_a_patch_with_too_few_levels_is_refused() -> None:
    with pytest.raises(InputError, match=r"patch_size \[10, 10, 10\] .* gives 2 levels, expected 3 or more"):
        dynunet(1, 2, (10, 10, 10))
