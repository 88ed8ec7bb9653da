"""Test the voxel sizes in the record of a training, and the warning about scans with other ones."""

from __future__ import annotations

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data import CheckSpacingd, grid_summary

ORDERS = [
    "".join(axes) for permuted in itertools.permutations(("LR", "AP", "IS")) for axes in itertools.product(*permuted)
]


def affine(order: str, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the affine of a scan stored in this order, with voxel sizes along left-right, front-back and foot-head."""
    ornt = nib.orientations.axcodes2ornt(order)
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (body, sign) in enumerate(ornt):
        matrix[int(body), axis] = sign * spacing[int(body)]
    return matrix


def test_a_summary_measures_along_the_axes_of_the_body() -> None:
    assert len(ORDERS) == 48
    rng = np.random.default_rng(0)
    for order in ORDERS:
        sizes = [tuple(rng.uniform(0.5, 6, 3)) for _ in range(3)]
        found = grid_summary([affine(order, size) for size in sizes] + [affine("LPS", sizes[0])])
        assert found["orientations"] == ({"LPS": 4} if order == "LPS" else {order: 3, "LPS": 1})
        repeated = np.array([*sizes, sizes[0]])
        for key, value in {"min": repeated.min(0), "median": np.median(repeated, 0), "max": repeated.max(0)}.items():
            np.testing.assert_allclose(found["spacing"][key], value, atol=1e-4)
        assert json.loads(json.dumps(found)) == found
    assert grid_summary([]) == {}


def scan(order: str, spacing: tuple[float, float, float]) -> MetaTensor:
    meta = {"original_affine": affine(order, spacing), "filename_or_obj": "P.nii.gz"}
    return MetaTensor(torch.zeros(1, 2, 2, 2), affine=np.eye(4), meta=meta)


TRAINED = grid_summary([affine("RAS", (0.7, 0.8, 5)), affine("LPS", (0.9, 0.6, 8))])


@pytest.mark.parametrize("order", ORDERS[::5])
def test_a_scan_far_outside_is_named_with_numbers(order: str, caplog: pytest.LogCaptureFixture) -> None:
    check = CheckSpacingd("image", TRAINED)
    data = {"image": scan(order, (0.8, 0.7, 1.0))}
    assert check(data)["image"] is data["image"]
    assert caplog.messages == ["P.nii.gz: voxels of 1 mm along foot-head (training 5 to 8 mm); the result may be poor"]
    caplog.clear()
    check({"image": scan(order, (0.3, 2.0, 6.0))})
    assert "0.3 mm along left-right (training 0.7 to 0.9 mm) and 2 mm along front-back" in caplog.text
    caplog.clear()
    one = CheckSpacingd("image", {"spacing": {"min": [1.0] * 3, "max": [1.0] * 3}})
    one({"image": scan(order, (1.0, 1.0, 9.0))})
    assert "9 mm along foot-head (training 1 mm)" in caplog.text


@pytest.mark.parametrize("trained", [TRAINED, None, {}])
def test_a_scan_like_the_training_passes(trained: dict | None, caplog: pytest.LogCaptureFixture) -> None:
    for spacing in ((0.7, 0.8, 5.0), (0.9, 0.7, 6.5), (1.0, 0.9, 9.0)):
        CheckSpacingd("image", trained)({"image": scan("LAS", spacing)})
    CheckSpacingd("image", trained)({"image": torch.zeros(1, 2, 2, 2)})
    assert not caplog.text
