"""Test label maps with labels of three sizes and three spacings, on an oblique grid."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from common.errors import InputError
from common.transforms import CheckLabeld

SHAPE = (3, 5, 4)
AFFINE = np.array([[0.7, 0, 0, -30], [0, 0.9, 0.1, 20], [0, -0.1, 5, 7], [0, 0, 0, 1]])
IMAGE = MetaTensor(np.zeros((2, *SHAPE)), affine=AFFINE, meta={"original_affine": AFFINE, "spatial_shape": SHAPE})


def check(label: np.ndarray, affine: np.ndarray = AFFINE, num_classes: int = 1, space: str = "RAS") -> MetaTensor:
    meta = {"filename_or_obj": "P_seg.nii", "space": space, "original_affine": affine}
    tensor = MetaTensor(label[None], affine=affine, meta=meta)
    return CheckLabeld("label", num_classes=num_classes)({"image": IMAGE, "label": tensor})["label"]


def mask(*values: float) -> np.ndarray:
    label = np.zeros(SHAPE)
    for i, value in enumerate(values):
        label[i] = value
    return label


@pytest.mark.parametrize("value", [1.0, 0.99999997, 255.0, 2.0])
def test_a_binary_mask_may_have_any_positive_value(value: float) -> None:
    np.testing.assert_array_equal(check(mask(value))[0], mask(1))


@pytest.mark.parametrize(("label_map", "warnings"), [({}, 1), ({1: 1, 2: 1}, 0)])
def test_binary_masks_of_different_values_log_a_warning(
    label_map: dict[int, int], warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    transform = CheckLabeld("label", labels={"tumour": 1}, label_map=label_map)
    for file, value in (("a.nii", 1), ("b.nii", 1), ("c.nii", 2), ("d.nii", 2), ("e.nii", 0)):
        label = MetaTensor(mask(value)[None], affine=AFFINE, meta={"filename_or_obj": file})
        np.testing.assert_array_equal(transform({"image": IMAGE, "label": label})["label"][0], mask(value > 0))
    shown = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(shown) == warnings
    assert all("1 in a.nii, 2 in c.nii; all become tumour" in text and "{1: 1, 2: 1}" in text for text in shown)


def test_empty_masks_and_rounded_classes_are_read() -> None:
    np.testing.assert_array_equal(check(mask())[0], mask())
    np.testing.assert_array_equal(check(mask(1, 0.999999), num_classes=2)[0], mask(1, 1))


def test_rounding_about_zero_counts_as_background() -> None:
    label = mask(1)
    label[2] = -1e-9
    np.testing.assert_array_equal(check(label)[0], mask(1))


def test_a_full_label_keeps_its_class() -> None:
    np.testing.assert_array_equal(check(mask(1, 1, 1))[0], mask(1, 1, 1))


ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)]


@pytest.mark.parametrize("space", ["RAS", "LPS", "left-posterior-superior"])
@pytest.mark.parametrize(("axes", "flips"), ORDERS)
def test_axes_are_turned_to_those_of_the_image(axes: tuple[int, ...], flips: tuple[int, ...], space: str) -> None:
    label = np.random.default_rng(0).integers(0, 3, SHAPE)
    orientation = np.stack([np.argsort(axes), np.array(flips)[np.argsort(axes)]], axis=1)
    turned = nib.orientations.apply_orientation(label, orientation)
    affine = AFFINE @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
    to_space = np.diag([1.0, 1, 1, 1] if space == "RAS" else [-1.0, -1, 1, 1])
    found = check(turned.copy(), to_space @ affine, num_classes=2, space=space)
    np.testing.assert_array_equal(found[0], label)
    np.testing.assert_array_equal(found.affine, AFFINE)
    np.testing.assert_array_equal(found.meta["original_affine"], AFFINE)
    assert found.meta["space"] == "RAS" and tuple(found.meta["spatial_shape"]) == SHAPE
    assert found.meta["filename_or_obj"] == "P_seg.nii"


def moved(voxels: float, axis: int = 0) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += voxels * AFFINE[:3, axis]
    return affine


def turned(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn[:2, :2] = [[c, -s], [s, c]]
    return turn @ AFFINE


@pytest.mark.parametrize("affine", [moved(0.49), moved(-0.49, 2), AFFINE + 5e-7, turned(0.3)])
def test_a_label_within_half_a_voxel_gets_the_image_affine(affine: np.ndarray) -> None:
    found = check(mask(0, 1), affine)
    np.testing.assert_array_equal(found[0], mask(0, 1))
    np.testing.assert_array_equal(found.affine, AFFINE)


@pytest.mark.parametrize(
    ("label", "affine", "classes", "message"),
    [
        (mask(1, 2), AFFINE, 1, "P_seg.nii: values 0, 1, 2, expected 0 and 1"),
        (mask(0.5, 1), AFFINE, 1, "P_seg.nii: values 0, 0.5, 1, expected 0 and 1"),
        (mask(1, 3), AFFINE, 2, "P_seg.nii: values 0, 1, 3, expected 0 and 1, 2"),
        (mask(-1, 1), AFFINE, 2, "P_seg.nii: values 0, -1, 1"),
        (mask(-1, -1, -1), AFFINE, 1, "P_seg.nii: values -1, expected 0 and 1"),
        (mask(-1024), AFFINE, 1, "P_seg.nii: values 0, -1024, expected 0 and 1"),
        (mask(255, 255, 255), AFFINE, 1, "P_seg.nii: values 255, expected 0 and 1"),
        (
            np.zeros((3, 5, 6)), AFFINE, 1,
            r"P_seg.nii: another grid .*: shape \[3, 5, 6\], expected \[3, 5, 4\]; resample it onto the image",
        ),
        (mask(1), moved(0.51, 2), 1, r"P_seg.nii: .* a corner lies 2.55 mm \(0.51 voxels\) away, expected at most 0.5"),
        (mask(1), AFFINE @ np.diag([1, 1, 1.25, 1]), 1, r"P_seg.nii: .* a corner lies 3.75 mm \(0.75 voxels\) away"),
        (mask(1), turned(5), 1, r"P_seg.nii: .* a corner lies 3.35 mm \(3 voxels\) away"),
    ],
)  # fmt: skip
def test_wrong_values_and_grids_are_refused(label: np.ndarray, affine: np.ndarray, classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(label, affine, classes)


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(InputError, match=r"P_seg.nii: its space is 'scanner-xyz', expected 'RAS' or 'LPS'"):
        check(mask(1), space="scanner-xyz")
