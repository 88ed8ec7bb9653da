from __future__ import annotations

import numpy as np
import pytest
import torch

from common.errors import InputError
from common.methods.omnet import BratsLabelsd, ToBratsd, to_brats
from common.methods.omnet.label_codes import LABEL_CODES

from .brain_scan import AFFINE, BRAIN, SHAPE, scan, tensor


def labels(values: dict[int, float]) -> np.ndarray:
    """Return a label map with these values at x = 14, 15, ... in the brain."""
    label = np.zeros((1, *SHAPE), np.float32)
    for i, value in enumerate(values.values()):
        label[0, 14 + i, 18, 14] = value
    return label


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("brats", {1: 1, 2: 2, 4: 3}),
        ("brats2015", {1: 1, 2: 2, 3: 1, 4: 3}),
        ("brats2023", {1: 1, 2: 2, 3: 3}),
        ("msd_task01", {1: 2, 2: 1, 3: 3}),
    ],
)
def test_label_codes_are_converted_and_inverted(code: str, meaning: dict[int, int]) -> None:
    data = {"image": tensor(scan()), "label": tensor(labels(dict.fromkeys(meaning, 0)), "P_seg.nii.gz")}
    for i, value in enumerate(meaning):
        data["label"][0, 14 + i, 18, 14] = value
    data["label"][0, 0, 0, 0] = 2  # drawn outside the brain
    result = BratsLabelsd("label")({**data, "label_code": code})["label"]
    expected = np.where(BRAIN, 4, 0)
    for i, index in enumerate(meaning.values()):
        expected[14 + i, 18, 14] = index
    expected[0, 0, 0] = meaning[2]
    np.testing.assert_array_equal(result[0].numpy(), expected)
    np.testing.assert_array_equal(result.affine, AFFINE)
    np.testing.assert_array_equal(BratsLabelsd("label", code=code)(data)["label"], result)

    back = to_brats(result, code)
    merged = data["label"].numpy().copy()
    if code == "brats2015":
        merged[merged == 3] = 1  # two values of one class
    np.testing.assert_array_equal(back, merged)
    np.testing.assert_array_equal(back.affine, AFFINE)
    np.testing.assert_array_equal(ToBratsd("pred", code)({"pred": result})["pred"], back)


def test_classes_become_the_labels_of_a_challenge() -> None:
    classes = torch.tensor([0, 1, 2, 3, 4])
    assert to_brats(classes).tolist() == [0, 1, 2, 4, 0]
    assert to_brats(classes, "brats2023").tolist() == [0, 1, 2, 3, 0]
    assert to_brats(classes, "msd_task01").tolist() == [0, 2, 1, 3, 0]
    assert all(set(codes.values()) == {1, 2, 3} for codes in LABEL_CODES.values())


def test_a_value_near_an_integer_counts_as_it() -> None:
    label = tensor(labels({0: 0.99999997, 1: 3.9999, 2: 1e-7}))
    result = BratsLabelsd("label")({"image": tensor(scan()), "label": label})["label"]
    assert result[0, 14:17, 18, 14].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ({0: 3}, "brats", r"P_seg.nii.gz: .* values 3, but label_code brats has 0, 1, 2, 4; list the data with"),
        ({0: 4, 1: 1}, "brats2023", r"values 4, but label_code brats2023 has 0, 1, 2, 3"),
        ({0: 1.5, 1: -1, 2: 255}, "brats", r"values -1, 1.5, 255, but"),
        ({0: 1}, "brats2017", r"label_code brats2017: expected one of brats, brats2015, brats2023, msd_task01"),
    ],
)
def test_values_of_another_code_are_refused(values: dict[int, float], code: str, message: str) -> None:
    data = {"image": tensor(scan()), "label": tensor(labels(values), "P_seg.nii.gz"), "label_code": code}
    with pytest.raises(InputError, match=message):
        BratsLabelsd("label")(data)
