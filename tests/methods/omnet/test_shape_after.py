"""Compare the largest shape that the crop predicts with real shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.methods.omnet import CropBraind


@pytest.mark.parametrize(("divisor", "margin"), [(8, 0), ((4, 8, 5), (0, 1, 2))])
def test_a_crop_predicts_its_largest_shape(divisor: int | tuple[int, ...], margin: int | tuple[int, ...]) -> None:
    """Both in a dense volume without background and in one with little foreground."""
    crop = CropBraind("image", divisor=divisor, margin=margin)
    for shape in ((9, 13, 5), (2, 22, 17), (31, 4, 8)):
        for image in (torch.ones(1, *shape), torch.zeros(1, *shape)):
            image[0, 1, 1, 1] += 1
            real = crop({"image": MetaTensor(image)})["image"]
            largest, spacing = crop.shape_after(shape, (0.5, 0.8, 5.0))
            assert (np.subtract(largest, real.shape[1:]) >= 0).all() and spacing == (0.5, 0.8, 5.0)
            assert all(isinstance(n, int) for n in largest)
