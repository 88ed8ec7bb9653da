from __future__ import annotations

import numpy as np
import pytest
from monai.data import MetaTensor

from common.errors import InputError
from common.transforms import CheckLabeld

IMAGE = MetaTensor(np.zeros((3, 4, 4, 4)), affine=np.eye(4))


def check(label: np.ndarray, affine: np.ndarray | None = None, num_classes: int = 1) -> np.ndarray:
    tensor = MetaTensor(
        label[None], affine=np.eye(4) if affine is None else affine, meta={"filename_or_obj": "P_seg.nii"}
    )
    return CheckLabeld("label", num_classes=num_classes)({"image": IMAGE, "label": tensor})["label"].numpy()[0]


def mask(*values: float) -> np.ndarray:
    label = np.zeros((4, 4, 4))
    for i, value in enumerate(values):
        label[i] = value
    return label


@pytest.mark.parametrize("value", [1.0, 0.99999997, 255.0, 2.0])
def test_binary_masks_whatever_their_value(value: float) -> None:
    np.testing.assert_array_equal(check(mask(value)), mask(1))


def test_empty_mask_and_classes() -> None:
    np.testing.assert_array_equal(check(mask()), mask())
    np.testing.assert_array_equal(check(mask(1, 2, 0.999999), num_classes=2), mask(1, 2, 1))


@pytest.mark.parametrize(
    ("label", "affine", "classes", "message"),
    [
        (mask(1, 2), None, 1, "P_seg.nii: values 0, 1, 2, expected 0 and 1"),
        (mask(0.5, 1), None, 1, "P_seg.nii: values 0, 0.5, 1, expected 0 and 1"),
        (mask(1, 3), None, 2, "P_seg.nii: values 0, 1, 3, expected 0 and 1, 2"),
        (mask(-1, 1), None, 2, "P_seg.nii: values 0, -1, 1"),
        (np.zeros((4, 4, 5)), None, 1, r"P_seg.nii: shape \[4, 4, 5\], but its image has \[4, 4, 4\]"),
        (mask(1), np.diag([1.0, 1, 3, 1]), 1, "P_seg.nii: its affine differs from its image's by up to 2"),
    ],
)
def test_labels_that_do_not_fit(label: np.ndarray, affine: np.ndarray | None, classes: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(label, affine, classes)
