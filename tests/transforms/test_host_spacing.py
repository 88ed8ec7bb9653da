"""Test the voxel size of an image whose affine MONAI Deploy made from a DICOM series."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.errors import InputError
from common.transforms import ResampleAxesd, ReturnToScand


def image_of(affine: list[float], row: float, column: float) -> MetaTensor:
    """Return an image ``(1, 12, 8, 5)`` as the operator of MONAI Deploy gives it to a bundle."""
    matrix = np.diag([-affine[0], -affine[1], affine[2], 1.0])
    meta = {
        "original_affine": matrix.copy(),
        "spatial_shape": np.array([12, 8, 5]),
        "row_pixel_spacing": row,
        "col_pixel_spacing": column,
        "depth_pixel_spacing": affine[2],
    }
    voxels = torch.arange(480.0).reshape(1, 12, 8, 5)
    return MetaTensor(voxels, affine=torch.as_tensor(matrix), meta=meta)


@pytest.mark.parametrize("affine", [[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]], ids=["exchanged", "right"])
def test_spacings_of_the_series_are_used(affine: list[float], caplog: pytest.LogCaptureFixture) -> None:
    resample = ResampleAxesd(["image"], pixdim=[1.0, 1.0, 3.0], mode=["bilinear"])
    done = resample({"image": image_of(affine, row=1.0, column=2.0)})["image"]
    assert done.shape == (1, 23, 8, 5)  # 12 columns of 2 mm, 8 rows of 1 mm
    assert np.linalg.norm(done.meta["original_affine"][:3, :3], axis=0).tolist() == [2.0, 1.0, 3.0]
    assert ("1 x 2 mm" in caplog.text) == (affine[0] == 1.0)


def test_mask_returns_to_the_voxels_of_the_series() -> None:
    data = {"image": image_of([1.0, 2.0, 3.0], row=1.0, column=2.0)}
    data = ResampleAxesd(["image"], pixdim=[1.0, 1.0, 3.0], mode=["bilinear"])(data)
    data["pred"] = MetaTensor((data["image"] > 240).float(), meta=data["image"].meta)
    done = ReturnToScand("pred", image_key="image")(data)["pred"]
    assert done.shape == (1, 12, 8, 5)


def test_other_spacings_than_those_of_the_series_are_refused() -> None:
    resample = ResampleAxesd(["image"], pixdim=[1.0, 1.0, 3.0], mode=["bilinear"])
    expected = r"0\.5 x 2 mm in the affine, col_pixel_spacing 2 mm and row_pixel_spacing 1 mm"
    with pytest.raises(InputError, match=expected):
        resample({"image": image_of([0.5, 2.0, 3.0], row=1.0, column=2.0)})
