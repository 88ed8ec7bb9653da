"""Test that resampling and inverse resampling lose no part of a scan in any orientation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import BorderPadd, Compose, Flipd, SpatialCropd, SpatialPadd
from monai.utils import SpaceKeys
from scipy.spatial.transform import Rotation

from common.errors import InputError
from common.transforms import ResampleAxesd, ReturnToScand

SHAPE = (9, 11, 7)
TO_LPS = np.diag([-1.0, -1, 1, 1])


def random_affine(rng: np.random.Generator, lean: float = 0.0) -> np.ndarray:
    """Return a rotation about one to three axes with a shear of at most ``lean``, rounded as in a float32 header."""
    affine = np.eye(4)
    axes = "".join(rng.permutation(list("xyz"))[: rng.integers(1, 4)])
    turn = Rotation.from_euler(axes, rng.uniform(-40, 40, len(axes)), degrees=True).as_matrix()
    shear = np.eye(3)
    shear[1, 2] = rng.uniform(-lean, lean)
    affine[:3, :3] = np.array(turn).reshape(3, 3) @ np.diag([0.5, 0.8, 5] * rng.choice([-1, 1], 3)) @ shear
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine[:, [*rng.permutation(3), 3]].astype(np.float32).astype(np.float64)


def scan(affine: np.ndarray, shape: tuple[int, ...] = SHAPE, **meta: Any) -> MetaTensor:
    known = {"original_affine": affine.copy(), "spatial_shape": np.array(shape), "filename_or_obj": "P1.nii.gz"}
    values = torch.from_numpy(np.random.default_rng(0).random((1, *shape), np.float32))
    return MetaTensor(values, affine=affine, meta={**known, **meta})


STEPS: dict[str, list[Any]] = {
    "spacing": [ResampleAxesd("image", pixdim=(1.3, 0.9, 2.1))],
    "in plane": [ResampleAxesd("image", pixdim=(-1, -1, 1.7), in_plane=12)],
    "padded": [ResampleAxesd("image", pixdim=(1.3, 0.9, 2.1)), SpatialPadd("image", (61, 70, 80))],
    "flipped": [ResampleAxesd("image", pixdim=(-1, 1, 3.5)), BorderPadd("image", 3), Flipd("image", (0, 2))],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("lean", [0.0, 3e-4, 0.4])
@pytest.mark.parametrize("scans", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_every_voxel_of_a_rotated_scan_gets_its_label(steps: list[Any], lean: float, scans: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(scans):
        image = Compose(steps)({"image": scan(random_affine(rng, lean))})["image"]
        affine, shape = (image.meta[f"resampled_{what}"] for what in ("affine", "shape"))
        # 1 on the grid of the scan; 0 in the padding, which must not reach the result
        ends = np.linalg.solve(image.affine, affine) @ np.array([[0, 0, 0, 1], [*(shape - 1), 1]]).T
        low, high = (f(ends[:3], axis=1).round().astype(int) for f in (np.min, np.max))
        scores = torch.zeros(image.shape)
        scores[(0, *(slice(a, b + 1) for a, b in zip(low, high)))] = 1
        back = ReturnToScand("pred", output="probabilities")({"image": image, "pred": scores})["pred"]
        assert back.shape == (1, *SHAPE) and back.min() > 0.9999
        labels = ReturnToScand("pred")({"image": image, "pred": scores.to(torch.uint8)})["pred"]
        assert labels.all()


@pytest.mark.slow
def test_the_grid_reaches_from_the_least_to_the_greatest_corner() -> None:
    rng = np.random.default_rng(4)
    resample = ResampleAxesd("image", pixdim=(1.3, 0.9, 2.1))
    corners = np.stack([*np.meshgrid(*((0, n - 1) for n in SHAPE), indexing="ij"), np.ones((2, 2, 2))]).reshape(4, -1)
    for lean in (0, 3e-4, 0.4) * 60:
        affine = random_affine(rng, lean)
        image = resample({"image": scan(affine)})["image"]
        there = (np.linalg.solve(image.affine, affine) @ corners)[:3]
        np.testing.assert_allclose(there.min(1), 0, atol=1e-5)
        assert (np.abs(there.max(1) - np.array(image.shape[1:]) + 1) <= 0.5 + 1e-5).all()


def test_a_tilt_by_rounding_adds_no_voxel_in_plane() -> None:
    affine = np.diag([0.5, 0.5, 5, 1.0])
    affine[1, 2] = 5 * np.tan(np.deg2rad(0.02))
    image = scan(affine, (32, 32, 30))
    assert ResampleAxesd("image", in_plane=16)({"image": image})["image"].shape == (1, 16, 16, 30)


def test_a_slice_beyond_the_grid_repeats_its_last_slice() -> None:
    """14 slices of 1.5 mm become 20 slices of 1 mm; the last of the 14 lies half a voxel beyond them."""
    image = scan(np.diag([-0.8, 0.7, 1.5, 1]), (16, 12, 14))
    steps = [ResampleAxesd("image", pixdim=(-1, -1, 1), in_plane=8), SpatialPadd("image", (10, 10, 32))]
    seen = Compose(steps)({"image": image})["image"]
    assert seen.shape == (1, 10, 10, 32) and seen.meta["resampled_shape"].tolist() == [8, 6, 20]
    scores = torch.zeros(2, 10, 10, 32)
    first = np.linalg.solve(seen.affine, seen.meta["resampled_affine"])[:3, 3].round().astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(first, (8, 6, 20)))
    scores[0], scores[1][box] = 0.5, 1
    assert ReturnToScand("pred")({"image": seen, "pred": scores})["pred"].all()


def test_outside_of_a_crop_is_background() -> None:
    steps = [ResampleAxesd("image", pixdim=(1, 1, 2)), SpatialCropd("image", roi_start=(1, 2, 3), roi_end=(4, 9, 12))]
    image = Compose(steps)({"image": scan(np.diag([0.5, 0.8, 5, 1]))})["image"]
    back = ReturnToScand("pred")({"image": image, "pred": torch.ones(image.shape)})["pred"][0].numpy()
    inside = np.zeros(SHAPE, bool)
    inside[1:8, 2:11, 1:5] = True  # 0.5 to 3.5, 1.5 to 8.5, 5 to 23 mm
    np.testing.assert_array_equal(back, inside)


@pytest.mark.parametrize("lean", [0.0, 0.3])
@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 2.5), None])
@pytest.mark.parametrize("scans", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_a_label_gets_the_grid_of_its_image(lean: float, pixdim: tuple[float, ...] | None, scans: int) -> None:
    """Also if their headers differ by rounding, in each scan."""
    rng = np.random.default_rng(5)
    resample = ResampleAxesd(["image", "label"], pixdim=pixdim, mode=["bilinear", "nearest"])
    for _ in range(scans):
        affine = random_affine(rng, lean)
        image = scan(affine)
        label = (image > 0.5).float()
        same = resample({"image": image, "label": label})
        label = MetaTensor(label.as_tensor(), affine=affine + rng.uniform(-5e-7, 5e-7, (4, 4)) * [[1]] * 3 + [[0]],
                           meta={"original_affine": affine})  # fmt: skip
        found = resample({"image": image, "label": label})
        np.testing.assert_array_equal(found["label"].affine, found["image"].affine)
        np.testing.assert_array_equal(found["label"].numpy(), same["label"].numpy())


def test_a_label_on_another_grid_is_refused() -> None:
    affine = np.diag([0.5, 0.8, 5, 1])
    resample = ResampleAxesd(["image", "label"], mode=["bilinear", "nearest"])
    other = scan(affine @ np.diag([1, 1, 1.2, 1]), filename_or_obj="P1_seg.nii.gz")
    message = r"P1_seg.nii.gz: another grid than P1.nii.gz: a corner lies 6 mm \(1.2 voxels\) away, .*; resample"
    with pytest.raises(InputError, match=message):
        resample({"image": scan(affine), "label": other})
    with pytest.raises(InputError, match=r"P1.nii.gz: another grid .*: shape \[9, 11, 6\], expected \[9, 11, 7\]"):
        resample({"image": scan(affine), "label": scan(affine, (9, 11, 6))})


@pytest.mark.parametrize("size", [(1.0, 0.8, 5), (0.5, 2.4, 5)])
def test_a_warning_names_a_lost_label(size: tuple[float, ...], caplog: pytest.LogCaptureFixture) -> None:
    affine = np.diag([0.5, 0.8, 5, 1])
    label = MetaTensor(torch.zeros(1, *SHAPE), affine=affine, meta={"original_affine": affine})
    label[0, 1, 1, :2], label[0, 4:7, 3:6, 3] = 1, 2
    resample = ResampleAxesd(["image", "label"], pixdim=size, mode=["bilinear", "nearest"])
    resample({"image": scan(affine), "label": label})
    (said,) = [record.getMessage() for record in caplog.records if record.name == "common.transforms.grids"]
    where = " x ".join(f"{s:g}" for s in size)
    assert said.startswith(f"label: label 1 (2 voxels) is lost on the network's grid of {where} mm")


SPACES = {
    "LPS": TO_LPS,
    SpaceKeys.LPS: TO_LPS,
    "left-posterior-superior": TO_LPS,
    "LAS": np.diag([-1.0, 1, 1, 1]),
    "right-anterior-superior": np.eye(4),
}


@pytest.mark.parametrize(("space", "matrix"), SPACES.items())
def test_another_space_is_converted(space: str, matrix: np.ndarray) -> None:
    affine = random_affine(np.random.default_rng(6))
    expected = STEPS["spacing"][0]({"image": scan(affine)})["image"]
    found = STEPS["spacing"][0]({"image": scan(matrix @ affine, space=space)})["image"]
    assert torch.equal(found.as_tensor(), expected.as_tensor()) and found.meta["space"] == SpaceKeys.RAS
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
    np.testing.assert_allclose(found.meta["original_affine"], affine, atol=1e-9)
    scores = expected.as_tensor()
    one, other = (
        ReturnToScand("pred")({"image": image, "pred": scores.clone()})["pred"] for image in (found, expected)
    )
    assert torch.equal(one.as_tensor(), other.as_tensor()) and 0 < one.float().mean() < 1


def test_without_a_space_an_affine_counts_as_ras() -> None:
    image = scan(np.diag([0.5, 0.8, 5, 1]))
    del image.meta["space"]
    assert ResampleAxesd("image")({"image": image})["image"].meta["space"] == SpaceKeys.RAS


@pytest.mark.parametrize("space", ["scanner-xyz", "left-posterior-superior-time", "", None, "RSA"])
def test_an_unknown_space_is_refused(space: str | None) -> None:
    with pytest.raises(InputError, match=rf"P1.nii.gz: its space is '{space}', expected 'RAS' or 'LPS'; convert"):
        ResampleAxesd("image")({"image": scan(np.eye(4), space=space)})
