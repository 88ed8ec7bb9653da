"""Compare inverse resampling with MONAI's, which resamples in all directions at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    AsDiscreted,
    BorderPadd,
    Compose,
    CropForegroundd,
    Invertd,
    MapTransform,
    SpatialCropd,
)
from torch.utils._python_dispatch import TorchDispatchMode

from common.methods.mmfnet import CropBodyd
from common.transforms import ReturnToScand, return_to_scan

from .scans import (
    COARSER,
    FINER,
    LPS,
    MIXED,
    PERMUTED,
    RAS,
    SHAPE,
    SHEARED,
    each_affine,
    field,
    monais,
    network_image,
    ours,
    scan,
)


def crop(image: MetaTensor) -> MapTransform:
    """Return a crop that removes some voxels at each side."""
    return SpatialCropd("image", roi_start=[2, 3, 1], roi_end=[n - 1 for n in image.shape[1:]])


CROPS: dict[str, list[Any]] = {
    "none": [],
    "crop": [crop],
    "pad": [BorderPadd("image", 4)],
    "crop and pad": [crop, BorderPadd("image", (0, 5, 2, 0, 0, 3))],
    "foreground": [CropForegroundd("image", "image", select_fn=lambda x: x > 1.5, margin=1, allow_smaller=True)],
    "body": [CropBodyd("image", roi_size=(14, 24, 4))],
}


def prepare(steps: list[Any], affine: np.ndarray, crops: list[Any] | None = None) -> tuple[list[MetaTensor], Compose]:
    """Return the resampled image, the images after each crop, and all these steps."""
    data = Compose(steps)({"image": scan(affine)})
    images = [data["image"]]
    for step in crops or []:
        steps = [*steps, step(data["image"]) if step is crop else step]
        data = steps[-1](data)
        images.append(data["image"])
    return images, Compose(steps)


def depths(image: MetaTensor, affine: np.ndarray) -> np.ndarray:
    """Return how deep each voxel of the scan lies in the image, in voxels of the image; negative outside."""
    voxels = np.stack([*np.indices(SHAPE), np.ones(SHAPE)]).reshape(4, -1)
    there = (np.linalg.inv(image.affine.numpy()) @ affine @ voxels)[:3]
    last = np.array(image.shape[1:])[:, None] - 1
    return np.minimum(there, last - there).min(0).reshape(SHAPE)


def comparable(images: list[MetaTensor], affine: np.ndarray) -> np.ndarray:
    """Return where MONAI's inverse does not mix in zeros from outside a crop: everywhere without a crop."""
    if len(images) == 1:
        return np.full(SHAPE, True)
    inside = np.min([depths(image, affine) for image in images], axis=0) > -1e-6
    assert inside.mean() > 0.1
    return inside


def invert(image: MetaTensor, steps: Compose, scores: torch.Tensor) -> MetaTensor:
    """Return the scores after MONAI's inverse resampling."""
    data = {"image": image, "pred": MetaTensor(scores.clone(), meta=image.meta)}
    return Invertd("pred", steps, orig_keys="image", nearest_interp=False)(data)["pred"]


def decide(values: MetaTensor) -> np.ndarray:
    options: dict[str, Any] = {"threshold": 0.5} if len(values) == 1 else {"argmax": True}
    return AsDiscreted("pred", **options)({"pred": values})["pred"].numpy()


def margin_of(values: MetaTensor) -> np.ndarray:
    """Return the distance of each voxel from the decision boundary."""
    array = values.numpy()
    return abs(array[0] - 0.5) if len(array) == 1 else np.ptp(np.sort(array, axis=0)[-2:], axis=0)


@each_affine
@pytest.mark.parametrize("crops", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("classes", [1, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize("pixdim", [FINER, pytest.param(COARSER, marks=pytest.mark.slow)], ids=["finer", "coarser"])
def test_inverse_label_map_equals_monais(
    affine: np.ndarray, crops: list[Any], classes: int, pixdim: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = prepare(ours(pixdim), affine, crops)
    same, steps = prepare(monais(pixdim), affine, crops)
    image = images[-1]
    np.testing.assert_allclose(image.affine, same[-1].affine, atol=1e-9)
    scores = field(classes, image.shape[1:], smooth=1 if pixdim is COARSER else 3)
    monkeypatch.setattr(return_to_scan, "STRIP_VALUES", 1000)  # several strips
    found = ReturnToScand("pred")({"image": image, "pred": scores})["pred"]
    assert isinstance(found, MetaTensor) and found.dtype == torch.uint8
    assert found.shape == (1, *SHAPE)
    np.testing.assert_array_equal(found.affine, affine)

    values = invert(same[-1], steps, scores)
    expected, inside = decide(values), comparable(images, affine)
    clear = inside & (margin_of(values) > 1e-5)
    assert clear.sum() >= 0.99 * inside.sum()
    np.testing.assert_array_equal(found[0].numpy()[clear], expected[0][clear])
    assert len(np.unique(expected[0][clear])) >= min(classes, 3)
    outside = depths(image, affine) < -0.5001
    assert (found[0].numpy()[outside] == 0).all()
    assert outside.any() == (crop in crops) or crops in (CROPS["foreground"], CROPS["body"])


@each_affine
@pytest.mark.parametrize("crops", CROPS.values(), ids=CROPS)
def test_inverse_probabilities_equal_monais(affine: np.ndarray, crops: list[Any]) -> None:
    images, _ = prepare(ours(MIXED), affine, crops)
    same, steps = prepare(monais(MIXED), affine, crops)
    image = images[-1]
    scores = field(3, image.shape[1:]).softmax(0)
    found = ReturnToScand("pred", output="probabilities")({"image": image, "pred": scores})["pred"]
    assert found.dtype == torch.float32 and found.shape == (3, *SHAPE)
    np.testing.assert_array_equal(found.affine, affine)
    inside = comparable(images, affine)
    expected = invert(same[-1], steps, scores).numpy()
    np.testing.assert_allclose(found.numpy()[:, inside], expected[:, inside], atol=1e-5)
    depth = depths(image, affine)
    np.testing.assert_allclose(found.numpy()[:, depth > -0.5].sum(0), 1, atol=1e-5)
    assert (found.numpy()[:, depth < -0.5001] == 0).all()


def test_outside_of_a_crop_is_background() -> None:
    (_, image), _ = prepare(ours(None), RAS, [crop])
    expected = np.zeros(SHAPE)
    expected[2:-1, 3:-1, 1:-1] = 1
    for classes in (1, 2, 3):
        scores = -torch.ones(classes, *image.shape[1:])
        scores[-1] = 1
        found = ReturnToScand("pred")({"image": image, "pred": scores})["pred"]
        np.testing.assert_array_equal(found[0].numpy(), expected * max(classes - 1, 1))
        values = ReturnToScand("pred", output="probabilities")({"image": image, "pred": scores})["pred"]
        np.testing.assert_array_equal(values[-1].numpy(), expected)


@pytest.mark.parametrize("output", ["labels", "probabilities"])
@pytest.mark.parametrize("affine", [RAS, SHEARED], ids=["axis-aligned", "sheared"])
def test_a_grid_outside_the_scan_gives_background(output: str, affine: np.ndarray) -> None:
    outside = affine.copy()
    outside[:3, 3] += 1000
    image = network_image((4, 4, 4), outside)
    found = ReturnToScand("pred", output=output)({"image": image, "pred": torch.ones(1, 4, 4, 4)})["pred"]
    assert found.shape == (1, *SHAPE) and not found.any()


@pytest.mark.parametrize("shape", [(1, 12, 9), (11, 1, 9), (11, 12, 1), (1, 1, 9)])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_single_slice_is_resampled_as_by_monai(shape: tuple[int, ...], classes: int) -> None:
    image = Compose(ours((0.73, 0.61, 1.37)))({"image": scan(LPS, shape)})["image"]
    data = {"image": scan(LPS, shape)}
    steps = Compose(monais((0.73, 0.61, 1.37)))
    same = steps(data)["image"]
    assert image.shape == same.shape and min(image.shape[1:]) == 1
    np.testing.assert_allclose(image.numpy(), same.numpy(), atol=1e-5)
    scores = field(classes, image.shape[1:])
    values = invert(same, steps, scores)
    found = ReturnToScand("pred")({"image": image, "pred": scores})["pred"]
    clear = margin_of(values) > 1e-5
    assert clear.mean() > 0.98 and found.shape == (1, *shape) and found.any()
    np.testing.assert_array_equal(found[0].numpy()[clear], decide(values)[0][clear])


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(("pixdim", "beyond"), [(FINER, 0.0), ((2.3, 2.0, 4.65), 0.45)], ids=["finer", "coarser"])
def test_inverse_resampling_of_a_sheared_scan_equals_monais(
    classes: int, pixdim: tuple[float, ...], beyond: float
) -> None:
    """The scan may end up to half a voxel beyond the grid."""
    (image,), _ = prepare(ours(pixdim), SHEARED)
    (same,), steps = prepare(monais(pixdim), SHEARED)
    assert depths(image, SHEARED).min() == pytest.approx(-beyond, abs=0.01)
    scores = field(classes, image.shape[1:], smooth=3)
    back = {"image": image, "pred": scores}
    values = invert(same, steps, scores)
    probabilities = ReturnToScand("pred", output="probabilities")(back)["pred"]
    np.testing.assert_allclose(probabilities.numpy(), values.numpy(), atol=1e-4)
    found = ReturnToScand("pred")(back)["pred"]
    assert found.dtype == torch.uint8 and found.shape == (1, *SHAPE)
    np.testing.assert_array_equal(found.affine, SHEARED)
    clear = margin_of(values) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[0].numpy()[clear], decide(values)[0][clear])


@pytest.mark.parametrize("affine", [LPS, SHEARED], ids=["axis-aligned", "sheared"])
def test_a_negative_threshold_leaves_the_outside_background(affine: np.ndarray) -> None:
    (_, image), _ = prepare(ours(FINER), affine, [crop])
    back = {"image": image, "pred": torch.full((1, *image.shape[1:]), 0.1)}
    found = ReturnToScand("pred", threshold=-1)(back)["pred"]
    depth = depths(image, affine)
    assert (found[0].numpy()[depth > -0.49] == 1).all()
    assert (found[0].numpy()[depth < -0.51] == 0).all() and (depth < -0.51).any()


def test_threshold_counts_as_foreground_and_first_class_wins() -> None:
    image = network_image(SHAPE, RAS)
    for value, label in ((0.5, 1), (np.nextafter(np.float32(0.5), np.float32(0)), 0)):
        scores = torch.full((1, *SHAPE), float(value))
        assert (ReturnToScand("pred")({"image": image, "pred": scores})["pred"] == label).all()
    for scores, label in (([2.0, 2, 1], 0), ([1, 2, 2], 1), ([2, 2], 0), ([2, 2 + 1e-6], 1)):
        volume = torch.tensor(scores).reshape(-1, 1, 1, 1).expand(-1, *SHAPE)
        assert (ReturnToScand("pred")({"image": image, "pred": volume})["pred"] == label).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_scores_of_any_precision_give_the_same_result(dtype: torch.dtype, classes: int) -> None:
    (image,), _ = prepare(ours(FINER), LPS)
    scores = field(classes, image.shape[1:]).to(dtype)
    for output in ("labels", "probabilities"):
        back = ReturnToScand("pred", output=output)
        one, other = (back({"image": image, "pred": s})["pred"] for s in (scores, scores.float()))
        assert torch.equal(one, other) and one.dtype == other.dtype


def test_the_prediction_stays_unchanged() -> None:
    (image,), _ = prepare(ours(FINER), PERMUTED)
    scores = MetaTensor(field(2, image.shape[1:]), affine=image.affine)
    values, affine = scores.as_tensor().clone(), scores.affine.clone()
    data = {"image": image, "pred": scores}
    plain = ReturnToScand("pred")({"image": image, "pred": values})["pred"]
    assert torch.equal(ReturnToScand("pred")(data)["pred"], plain)
    assert data["pred"] is scores
    assert torch.equal(scores.as_tensor(), values) and torch.equal(scores.affine, affine)
    assert plain.meta["filename_or_obj"] == "P1.nii.gz"


@pytest.mark.parametrize("affine", [RAS, SHEARED], ids=["axis-aligned", "sheared"])
def test_wrong_shapes_and_too_many_classes_are_refused(affine: np.ndarray) -> None:
    image = network_image((3, 4, 5), RAS, affine)
    with pytest.raises(ValueError, match=r"'pred' of shape \[2, 3, 4, 6\], .* image, \[1, 3, 4, 5\]"):
        ReturnToScand("pred")({"image": image, "pred": torch.zeros(2, 3, 4, 6)})
    for classes in (255, 300):
        with pytest.raises(ValueError, match=f"{classes} classes.* 8 bits"):
            ReturnToScand("pred")({"image": image, "pred": torch.zeros(classes, 3, 4, 5)})
    many = torch.zeros(254, 3, 4, 5)
    many[253] = 1
    assert ReturnToScand("pred")({"image": image, "pred": many})["pred"].max() == 253
    with pytest.raises(ValueError, match="output='mask': expected 'labels' or 'probabilities'"):
        ReturnToScand("pred", output="mask")


class Largest(TorchDispatchMode):
    """Record the number of values in the largest tensor that any operation returns."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_label_maps_need_no_scores_at_the_scans_size(smooth: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not if no two neighbours have the same class: scores are then resampled strip by strip."""
    monkeypatch.setattr(return_to_scan, "STRIP_VALUES", 4096)
    classes, voxels = 6, 64 * 48 * 40
    image = MetaTensor(torch.zeros(1, 8, 6, 5), affine=np.diag([8.0, 8, 8, 1]))
    image.meta.update({"original_affine": np.eye(4), "spatial_shape": np.array([64, 48, 40])})
    with Largest() as largest:
        ReturnToScand("pred")({"image": image, "pred": field(classes, (8, 6, 5), smooth)})
    assert largest.values <= voxels  # the label map of 8 bits
    with Largest() as largest:
        ReturnToScand("pred", output="probabilities")({"image": image, "pred": field(classes, (8, 6, 5), smooth)})
    assert largest.values == classes * voxels  # the test notices scores of this size
