"""Test the conversion from values of files to classes and from classes to values of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from monai.data import MetaTensor

from common.errors import InputError
from common.transforms import CheckLabeld, LabelValuesd

IMAGE = MetaTensor(np.zeros((1, 4, 4, 4)), affine=np.eye(4))


def mask(*values: float) -> np.ndarray:
    label = np.zeros((4, 4, 4))
    for i, value in enumerate(values):
        label[i] = value
    return label


def to_classes(label: np.ndarray, **options: Any) -> np.ndarray:
    tensor = MetaTensor(label[None], affine=np.eye(4), meta={"filename_or_obj": "P_seg.nii"})
    return CheckLabeld("label", **options)({"image": IMAGE, "label": tensor})["label"].numpy()[0]


@pytest.mark.parametrize(
    ("labels", "label_map", "expected"),
    [
        ({"liver": 1}, {"1": 1, "2": 1, "3": 0}, (1, 1, 0)),
        ({"liver": 1, "tumour": 2, "cyst": 3}, {}, (1, 2, 3)),
        ({"cyst": 3, "tumour": 2, "liver": 1}, {}, (3, 2, 1)),
        ({"oedema": 1, "necrosis": 2, "core": 7}, {1: 2, 2: 1, 3: 7}, (2, 1, 3)),
    ],
)
def test_values_of_labels_are_classes(labels: dict, label_map: dict, expected: tuple[int, ...]) -> None:
    found = to_classes(mask(1, 2, 3), labels=labels, label_map=label_map)
    np.testing.assert_array_equal(found, mask(*expected))


def test_a_merged_value_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    transform = CheckLabeld("label", labels={"liver": 1}, label_map={1: 1, 2: 1})
    with caplog.at_level("INFO"):
        for values in ((1,), (1, 2), (2,)):
            label = MetaTensor(mask(*values)[None], affine=np.eye(4), meta={"filename_or_obj": f"{len(values)}.nii"})
            assert transform({"image": IMAGE, "label": label})["label"].unique().tolist() == [0, 1]
    (record,) = caplog.records
    assert record.message == "2.nii: label_map takes 2 as liver; the same holds for all cases"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"lesion": 1}}, r'values 0, 1, 2, expected 0 and 1; map them with --label_map "{1: 1, 2: 1}"'),
        ({"labels": {"a": 1, "b": 3}}, r'expected 0 and 1, 3; map them with --label_map "{1: 1, 2: 0}"'),
        ({"labels": {"liver": 1}, "label_map": {7: 1, 1: 1}}, r'expected 0 and 7, 1; .* "{1: 1, 2: 1, 7: 1}"'),
        ({"labels": {"a": 1, "b": 2}, "count": 1}, "this network segments one; merge them"),
    ],
)
def test_the_message_gives_the_option_to_type(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_classes(mask(1, 2), **options)


def test_a_map_leaves_no_value_that_it_does_not_name() -> None:
    """With one, a mask of one other value is no longer taken as binary."""
    with pytest.raises(InputError, match="values 0, 3, expected 0 and 1, 2"):
        to_classes(mask(3), labels={"liver": 1}, label_map={1: 1, 2: 1})


@pytest.mark.parametrize(("labels", "expected"), [({"a": 1, "b": 2}, (1, 2)), ({"a": 5, "b": 1}, (5, 1))])
def test_classes_are_written_as_values(labels: dict[str, int], expected: tuple[int, ...]) -> None:
    pred = MetaTensor(mask(1, 2)[None].astype(np.uint8), affine=np.diag([2.0, 1, 1, 1]))
    found = LabelValuesd("pred", labels)({"pred": pred})["pred"]
    np.testing.assert_array_equal(found[0], mask(*expected))
    np.testing.assert_array_equal(found.affine, pred.affine)
    assert found.dtype == pred.dtype and pred.unique().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="'pred': class 2, but there are 1 labels"):
        LabelValuesd("pred", {"a": 1})({"pred": pred})
