"""Test the shapes that the crops predict."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from common.methods.multirnet import CropLesionPatchd, CropLungsd


def test_the_box_of_the_lungs_lies_within_the_scan() -> None:
    assert CropLungsd("image").shape_after((9, 8, 7), (1.0, 1.0, 5.0)) == ((9, 8, 7), (1.0, 1.0, 5.0))


def test_a_patch_predicts_its_shape() -> None:
    crop = CropLesionPatchd("image", roi_size=(8, 6, 4))
    real = crop({"image": MetaTensor(torch.rand(1, 5, 9, 7)), "centres": torch.tensor([[1, 2, 3]])})["image"]
    assert crop.shape_after((5, 9, 7), (1.0, 1.0, 5.0)) == (tuple(real.shape[1:]), (1.0, 1.0, 5.0))
