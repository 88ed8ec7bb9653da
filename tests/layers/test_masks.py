from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.errors import InputError
from common.layers import label_masks


@pytest.mark.parametrize("size", [(5,), (4, 3), (5, 4, 3)])
def test_each_label_has_its_mask(size: tuple[int, ...]) -> None:
    label = torch.randint(0, 4, (2, 1, *size))
    masks = label_masks(label.float(), torch.zeros(2, 3, *size, dtype=torch.bfloat16))
    assert masks.shape == (2, 3, *size) and masks.dtype == torch.bfloat16
    for index in range(3):
        assert torch.equal(masks[:, index : index + 1] == 1, label == index + 1)
        assert torch.equal(masks[:, index : index + 1] == 0, label != index + 1)


@pytest.mark.parametrize("value", [3.0, -1.0, 0.5])
def test_a_value_without_a_map_is_refused(value: float) -> None:
    label = torch.tensor([0.0, 1.0, 2.0, value]).reshape(1, 1, 4)
    with pytest.raises(InputError, match=f"has the value {value:g}, but the network has maps of the values 1 to 2;"):
        label_masks(label, torch.zeros(1, 2, 4))


@pytest.mark.parametrize("label", [torch.zeros(1, 1, 5), torch.zeros(1, 2, 4), torch.zeros(2, 1, 4)])
def test_shapes_that_do_not_fit_are_refused(label: Tensor) -> None:
    with pytest.raises(InputError, match=r"maps of shape \[1, 2, 4\] with a label of shape"):
        label_masks(label, torch.zeros(1, 2, 4))
