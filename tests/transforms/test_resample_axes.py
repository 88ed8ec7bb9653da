"""Compare resampling to the network's grid with MONAI's, which resamples in all directions at once."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    Orientationd,
    Spacingd,
)

from common.errors import InputError
from common.memory import Memory
from common.transforms import ResampleAxesd
from common.transforms.grids import axis_positions

from .scans import COARSER, FINER, LPS, MIXED, PERMUTED, RAS, SHAPE, SHEARED, each_affine, field, monais, scan


@each_affine
@pytest.mark.parametrize("pixdim", [FINER, COARSER, MIXED, None], ids=["finer", "coarser", "-1", "none"])
def test_grid_and_values_equal_monais(affine: np.ndarray, pixdim: tuple[float, ...] | None) -> None:
    expected = Compose(monais(pixdim))({"image": scan(affine)})["image"]
    found = ResampleAxesd("image", "RAS", pixdim)({"image": scan(affine)})["image"]
    assert isinstance(found, MetaTensor) and found.dtype == torch.float32
    assert found.shape == expected.shape
    assert (pixdim is None) == (sorted(found.shape[1:]) == sorted(SHAPE))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("axcodes", ["LPI", "SAR"])
def test_any_orientation_equals_monais(axcodes: str) -> None:
    steps = [Orientationd("image", axcodes=axcodes, labels=None), Spacingd("image", FINER)]
    expected = Compose(steps)({"image": scan(LPS)})["image"]
    found = ResampleAxesd("image", axcodes, FINER)({"image": scan(LPS)})["image"]
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


@each_affine
@pytest.mark.parametrize("pixdim", [FINER, COARSER, MIXED], ids=["finer", "coarser", "-1"])
def test_labels_come_from_the_nearest_voxel(affine: np.ndarray, pixdim: tuple[float, ...]) -> None:
    """No position of these grids is half-way between two voxels."""
    label = MetaTensor((3 * field(1, SHAPE)).round(), affine=affine, meta={"original_affine": affine})
    steps = [Orientationd("label", axcodes="RAS", labels=None), Spacingd("label", pixdim, mode="nearest")]
    expected = Compose(steps)({"label": label.clone()})["label"]
    both = ResampleAxesd(["image", "label"], "RAS", pixdim, mode=["bilinear", "nearest"])
    found = both({"image": label, "label": label})
    np.testing.assert_array_equal(found["label"].numpy(), expected.numpy())
    assert len(found["label"].unique()) > 5
    assert not torch.equal(found["image"], found["image"].round())


def test_a_volume_without_an_affine_is_refused() -> None:
    """An array of another program may have no affine; its voxels would count as cubes of 1 mm."""
    with pytest.raises(InputError, match="image: a volume without 'original_affine'"):
        ResampleAxesd("image")({"image": MetaTensor(field(1, SHAPE))})


def test_a_sheared_scan_is_resampled_as_by_monai() -> None:
    assert axis_positions(np.diag([1.1, 0.9, 2.5, 1]), SHAPE, SHEARED) is None
    expected = Compose(monais(FINER))({"image": scan(SHEARED)})["image"]
    found = ResampleAxesd("image", "RAS", FINER)({"image": scan(SHEARED)})["image"]
    assert found.shape == expected.shape and found.dtype == torch.float32
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-9)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)
    assert found.affine[:3, :3].diag().numpy() == pytest.approx(FINER)


@pytest.mark.parametrize(("drift", "parallel"), [(0.0099, True), (0.0101, False)])
def test_axes_are_parallel_to_a_hundredth_of_a_voxel(drift: float, parallel: bool) -> None:
    oblique = np.eye(4)
    oblique[0, 2] = drift / (SHAPE[2] - 1)
    assert (axis_positions(oblique, SHAPE, np.eye(4)) is not None) == parallel


def test_positions_are_counted_along_the_parallel_axis() -> None:
    parallel = axis_positions(PERMUTED, SHAPE, RAS)
    assert parallel is not None
    axes, positions = parallel
    assert axes == [1, 2, 0]
    for i, (axis, line) in enumerate(zip(axes, positions)):
        voxels = np.zeros((4, SHAPE[i]))
        voxels[i], voxels[3] = np.arange(SHAPE[i]), 1
        np.testing.assert_allclose(line, (np.linalg.inv(RAS) @ PERMUTED @ voxels)[axis], atol=1e-9)


@pytest.mark.parametrize("affine", [LPS, SHEARED], ids=["axis-aligned", "sheared"])
@pytest.mark.parametrize("pixdim", [FINER, None], ids=["finer", "none"])
def test_the_input_stays_unchanged(affine: np.ndarray, pixdim: tuple[float, ...] | None) -> None:
    image = scan(affine)
    values, meta = image.as_tensor().clone(), deepcopy(image.meta)
    data = {"image": image}
    found = ResampleAxesd("image", "RAS", pixdim)(data)["image"]
    found.affine[:3, 3] += 100
    found.meta["filename_or_obj"] = "other"
    assert data["image"] is image and not image.applied_operations
    assert torch.equal(image.as_tensor(), values)
    assert image.meta.keys() == meta.keys()
    for key in meta:
        np.testing.assert_array_equal(image.meta[key], meta[key])
    np.testing.assert_array_equal(found.meta["original_affine"], affine)
    np.testing.assert_array_equal(found.meta["spatial_shape"], SHAPE)


def test_a_plain_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a MetaTensor with an affine, found Tensor"):
        ResampleAxesd("image")({"image": torch.zeros(1, 3, 3, 3)})


@pytest.mark.parametrize("options", [{"pixdim": (1.0, 1.0, 1.0)}, {"pixdim": (-1, -1, 0.0001), "in_plane": 64}])
def test_a_grid_that_does_not_fit_the_memory_is_refused(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.memory.main_memory", lambda: Memory(2_000_000_000, 10**10))
    affine = np.diag([100.0, 90.0, 80.0, 1.0])
    meta = {"original_affine": affine, "filename_or_obj": "P1.nii.gz"}
    volume = MetaTensor(torch.zeros(1, 12, 10, 8), affine=affine, meta=meta)
    message = r"P1\.nii\.gz: resampling 12 x 10 x 8 voxels of 100 x 90 x 80 mm .* GB of memory, but 2\.0 GB are free"
    with pytest.raises(InputError, match=message):
        ResampleAxesd("image", **options)({"image": volume})


@pytest.mark.parametrize("side", [0.0007, 0.0099, 101.0, 4000.0])
@pytest.mark.parametrize("axis", range(3))
def test_a_voxel_size_that_no_scanner_has_is_refused(side: float, axis: int) -> None:
    """Metres or micrometres that are taken for millimetres."""
    spacing = [0.8, 0.8, 5.0]
    spacing[axis] = side
    message = rf"P1\.nii\.gz: voxels of .*{side:.4g}.* mm, expected 0\.01 to 100 mm .*; correct the spacing"
    with pytest.raises(InputError, match=message):
        ResampleAxesd("image")({"image": scan(np.diag([*spacing, 1.0]))})
