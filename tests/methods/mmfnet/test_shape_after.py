"""Compare the largest shape that the crop predicts with real shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.methods.mmfnet import CropBodyd, SelectChannelsd


@pytest.mark.parametrize(("roi_size", "margin"), [((14, 24, 4), (1, 2, 3)), ((30, 6, 40), (0, 0, 1))])
def test_a_crop_predicts_its_largest_shape(roi_size: tuple[int, ...], margin: tuple[int, ...]) -> None:
    """Both in a dense volume without background and in one with little foreground."""
    crop = CropBodyd("image", roi_size, margin=margin)
    for shape in ((9, 13, 5), (2, 22, 17), (31, 4, 8)):
        for image in (torch.ones(1, *shape), torch.zeros(1, *shape)):
            image[0, 1, 1, 1] += 1
            real = crop({"image": MetaTensor(image)})["image"]
            largest, spacing = crop.shape_after(shape, (0.5, 0.8, 5.0))
            assert (np.subtract(largest, real.shape[1:]) >= 0).all() and spacing == (0.5, 0.8, 5.0)
            assert all(isinstance(n, int) for n in largest)


def test_chosen_channels_are_counted() -> None:
    select = SelectChannelsd("image", channels=[2, 0])
    assert select.channels_after(4) == len(select({"image": torch.zeros(4, 2, 2, 2)})["image"]) == 2
