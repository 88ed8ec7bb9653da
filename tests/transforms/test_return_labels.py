"""Test the inverse resampling of label maps onto the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, SpatialCropd
from scipy import ndimage

from common.transforms import DecideLabeld, ResampleAxesd, ReturnToScand

SHAPE = (17, 22, 13)
LPS = np.array([[-1.1, 0, 0, 50], [0, -0.9, 0, 40], [0, 0, 2.5, -3], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, -2.5, 11], [1.1, 0, 0, 0], [0, -0.9, 0, 9], [0, 0, 0, 1]])
SHEARED = LPS @ np.array([[1, 0, 0.6, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

each_affine = pytest.mark.parametrize("affine", [LPS, PERMUTED, SHEARED], ids=["LPS", "permuted", "sheared"])


def network_image(affine: np.ndarray, pixdim: tuple[float, ...] | None) -> MetaTensor:
    """Return a scan as the network got it, without a part of it."""
    meta = {"original_affine": affine.copy(), "spatial_shape": np.array(SHAPE)}
    scan = MetaTensor(torch.rand(1, *SHAPE), affine=affine, meta=meta)
    steps: list[Any] = [
        ResampleAxesd("image", "RAS", pixdim),
        SpatialCropd("image", roi_start=(2, 3, 1), roi_end=(300, 300, 300)),
    ]
    return Compose(steps)({"image": scan})["image"]


def some_labels(shape: tuple[int, ...]) -> torch.Tensor:
    """Return labels 0, 1, 2, 3 and 200 in any neighbourhood, so that a mean of labels is another one."""
    return torch.tensor([0, 1, 2, 3, 200])[torch.randint(5, (1, *shape))]


@each_affine
@pytest.mark.parametrize("pixdim", [(0.73, 0.61, 1.37), (2.3, 1.9, 5.3)], ids=["finer", "coarser"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_each_voxel_gets_the_nearest_label(affine: np.ndarray, pixdim: tuple[float, ...], dtype: torch.dtype) -> None:
    image = network_image(affine, pixdim)
    label = some_labels(image.shape[1:]).to(dtype)
    found = ReturnToScand("pred")({"image": image, "pred": label})["pred"]
    assert isinstance(found, MetaTensor) and found.dtype == torch.uint8 and found.shape == (1, *SHAPE)
    np.testing.assert_array_equal(found.affine, affine)

    voxels = np.stack([*np.indices(SHAPE), np.ones(SHAPE)]).reshape(4, -1)
    there = (np.linalg.inv(image.affine.numpy()) @ affine @ voxels)[:3]
    expected = ndimage.map_coordinates(label[0].numpy(), there, order=0, mode="nearest").reshape(SHAPE)
    distance = np.max([np.maximum(-p, p - n + 1) for p, n in zip(there, image.shape[1:])], axis=0).reshape(SHAPE)
    half_way = np.isclose(there % 1, 0.5, atol=1e-3).any(0).reshape(SHAPE)
    within, outside = (distance < 0.499) & ~half_way, distance > 0.501
    assert within.mean() > 0.4 and outside.mean() > 0.05
    np.testing.assert_array_equal(found[0].numpy()[within], expected[within])
    assert (found[0].numpy()[outside] == 0).all()
    assert set(np.unique(found)) == {0, 1, 2, 3, 200}


def test_on_the_scans_own_voxels_nothing_changes() -> None:
    image = network_image(LPS, None)
    label = some_labels(image.shape[1:])
    found = ReturnToScand("pred")({"image": image, "pred": MetaTensor(label, affine=image.affine)})["pred"]
    expected = np.zeros(SHAPE)
    expected[:-2, :-3, 1:] = label[0].numpy()[::-1, ::-1]
    np.testing.assert_array_equal(found[0].numpy(), expected)


def test_the_threshold_applies_to_scores_alone() -> None:
    image = network_image(LPS, None)
    mask = torch.rand(1, *image.shape[1:]) > 0.5
    label = mask.to(torch.uint8)
    for found in (label, mask):
        back = ReturnToScand("pred", threshold=2.0)({"image": image, "pred": found})["pred"]
        assert int(back.sum()) == int(mask.sum()) > 0
    assert not ReturnToScand("pred", threshold=2.0)({"image": image, "pred": label.float()})["pred"].any()


def test_integer_scores_of_several_classes_are_scores() -> None:
    image = network_image(LPS, None)
    scores = torch.zeros(3, *image.shape[1:], dtype=torch.int64)
    scores[2] = 5
    assert ReturnToScand("pred")({"image": image, "pred": scores})["pred"].max() == 2


def test_labels_have_no_probabilities() -> None:
    image = network_image(LPS, None)
    label = some_labels(image.shape[1:])
    with pytest.raises(ValueError, match=r"'pred' is a label map \(torch.int64\), which has no probabilities"):
        ReturnToScand("pred", output="probabilities")({"image": image, "pred": label})


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_deciding_on_the_own_grid_equals_resampling(classes: int) -> None:
    meta = {"original_affine": np.eye(4), "spatial_shape": np.array(SHAPE)}
    image = MetaTensor(torch.rand(1, *SHAPE), affine=np.eye(4), meta=meta)
    scores = torch.rand(classes, *SHAPE)
    case = {"image": image, "pred": scores}
    own = DecideLabeld("pred", threshold=0.3)(case)["pred"]
    assert own.dtype == torch.uint8 and own.shape == (1, *SHAPE)
    assert torch.equal(own, ReturnToScand("pred", threshold=0.3)(case)["pred"].as_tensor())
    expected = (scores >= 0.3).float() if classes == 1 else scores.argmax(0, keepdim=True)
    assert torch.equal(own, expected.to(torch.uint8))
    assert case["pred"] is scores
