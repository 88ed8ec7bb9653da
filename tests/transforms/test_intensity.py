from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRanged
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError
from common.transforms import CheckHounsfieldd, CheckMRId, ClipScaled, ClipStandardized
from common.transforms.intensity import without_hot_voxels

VALUES = (-3024.0, -200.0, -50.0, 0.0, 75.0, 200.0, 3000.0)
STOMACH = {"low": -50.0, "high": 150.0, "mean": 60.0, "sd": 40.0, "cases": 3, "digest": "x"}


def image(dtype: torch.dtype = torch.float32) -> MetaTensor:
    return MetaTensor(torch.tensor(VALUES, dtype=dtype).reshape(1, 7, 1, 1), affine=np.diag([1.0, 2, 3, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16])
def test_scaled_values_equal_those_by_hand(dtype: torch.dtype) -> None:
    scaled = ClipScaled("image", -200, 200, (-1, 1))({"image": image(dtype)})["image"]
    assert scaled.flatten().tolist() == [-1, -1, -0.25, 0, 0.375, 1, 1]
    standardised = ClipStandardized("image", STOMACH)({"image": image(dtype)})["image"]
    assert standardised.flatten().tolist() == pytest.approx([-2.75, -2.75, -2.75, -1.5, 0.375, 2.25, 2.25])
    for result in (scaled, standardised):
        assert isinstance(result, MetaTensor) and result.dtype == torch.float32
        np.testing.assert_array_equal(result.affine, np.diag([1.0, 2, 3, 1]))


@pytest.mark.parametrize("to", [(0.0, 1.0), (-1.0, 1.0), (0.2, 0.7)])
def test_scaling_equals_monais(to: tuple[float, float]) -> None:
    volume = {"image": MetaTensor(torch.randn(1, 6, 5, 4) * 500)}
    expected = ScaleIntensityRanged("image", -1000, 400, *to, clip=True)(volume)["image"]
    torch.testing.assert_close(ClipScaled("image", -1000, 400, to)(volume)["image"], expected, atol=1e-6, rtol=0)


def test_the_default_range_is_0_to_1() -> None:
    scaled = ClipScaled("image", -200, 200)({"image": image()})["image"]
    assert (float(scaled.min()), float(scaled.max())) == (0, 1)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_input_stays_unchanged(tracked: bool) -> None:
    volume = image() if tracked else image().as_tensor()
    data = {"image": volume}
    result = ClipStandardized("image", STOMACH)(data)["image"]
    assert data["image"] is volume and volume.flatten().tolist() == list(VALUES)
    assert isinstance(result, MetaTensor) == tracked


class Made(TorchDispatchMode):
    """Record the storages of the volumes that operations allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= 1000:
            self.storages.add(result.untyped_storage().data_ptr())
        return result


def test_scaling_allocates_one_volume() -> None:
    volume = torch.randn(1, 10, 10, 10)
    with Made() as made:
        kept = ClipScaled("image", -1, 1)({"image": volume})
    assert made.storages == {kept["image"].untyped_storage().data_ptr()}


@pytest.mark.parametrize(("low", "high", "to"), [(200, -200, (0, 1)), (0, 0, (0, 1)), (-200, 200, (1, 1))])
def test_an_empty_window_is_refused(low: float, high: float, to: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}, to=.*; expected low < high"):
        ClipScaled("image", low, high, to)


def test_unsigned_values_are_not_a_ct() -> None:
    """Another program may pass uint16."""
    with pytest.raises(InputError, match="image: values from 1 to 9, expected a CT"):
        CheckHounsfieldd("image")({"image": torch.tensor([1, 9], dtype=torch.uint16).reshape(1, 2, 1, 1)})


def ct(seed: int = 0, shape: tuple[int, int, int] = (32, 30, 20)) -> np.ndarray:
    """Return air and a body of fat, soft tissue and a little bone, with noise."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice([-1000.0, -100, 50, 700], size=shape, p=[0.5, 0.1, 0.38, 0.02])
    return (tissue + rng.normal(0, 15, shape)).round()


def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (32, 30, 20)).astype(float)


def probabilities() -> np.ndarray:
    distance = np.linalg.norm(np.indices((32, 30, 20)) - np.reshape([15, 14, 9], (3, 1, 1, 1)), axis=0)
    return 1 / (1 + np.exp(2 * (distance - 8)))


def volume(array: np.ndarray, dtype: torch.dtype = torch.float32) -> MetaTensor:
    return MetaTensor(torch.as_tensor(array)[None].to(dtype), meta={"filename_or_obj": "P.nii.gz"})


@pytest.mark.parametrize("padding", [None, -2000, -3024, -32768])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_a_ct_in_hounsfield_units_passes(padding: float | None, dtype: torch.dtype) -> None:
    for seed in range(5):
        array = ct(seed)
        if padding is not None:
            array[:6] = padding
        data = {"image": volume(array, dtype)}
        assert CheckHounsfieldd("image")(data)["image"] is data["image"]


@pytest.mark.parametrize("padding", [None, -1024, -2000, -32768])
def test_a_ct_without_its_intercept_is_refused(padding: float | None) -> None:
    array = ct() + 1024
    if padding is not None:
        array[:6] = padding
    with pytest.raises(InputError, match=r"^P.nii.gz: values from .*expected a CT in Hounsfield units: .*intercept"):
        CheckHounsfieldd("image")({"image": volume(array)})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.random.default_rng(0).gamma(2, 150, (32, 30, 20)),
            "values from .*0.0% .* between -900 and -50, .* this may be an MRI; give a CT",
        ),
        (np.random.default_rng(0).normal(0, 1, (32, 30, 20)), "0.0% of the voxels are between -900 and -50"),
        (np.random.default_rng(0).uniform(-4096, 4096, (32, 30, 20)), "above 2000"),
        (labels(), "4 different values, .* looks like a label: take it out of the folder"),
        (np.where(labels() > 2, 1000.0, -1000), "2 different values, as in a label map"),
        (probabilities(), "between -900 and -50"),
        (ct() / 1000, "between -900 and -50"),
        (ct() - 1024, "between -200 and 250, where soft tissue is"),
    ],
    ids=["MRI", "normalised MRI", "phase", "labels", "mask", "probabilities", "other unit", "intercept twice"],
)
def test_other_volumes_than_ct_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CheckHounsfieldd("image")({"image": volume(array)})


@pytest.mark.parametrize("value", [1e5, 1e30, 3e38, -1e30])
def test_damaged_voxels_of_a_ct_are_limited(value: float, caplog: pytest.LogCaptureFixture) -> None:
    array = ct()
    array[3:6, 3:6, 3:6] = value
    result = CheckHounsfieldd("image")({"image": volume(array)})["image"]
    assert float(result.abs().max()) == 32768 and isinstance(result, MetaTensor)
    assert "P.nii.gz: 27 voxels beyond +-32768 HU" in caplog.text


def mri(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = np.abs(rng.normal(0, 10, (32, 30, 20)))
    array[6:26, 6:24, 4:16] += rng.gamma(8, 50, (20, 18, 12))
    return array


@pytest.mark.parametrize("scale", [1.0, 0.001, 30.0])
def test_mri_passes_unchanged(scale: float, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(5):
        for array in (mri(seed), np.where(mri(seed) > 50, mri(seed), 0)):
            channel = torch.as_tensor(array * scale).float()
            data = {"image": channel[None]}
            assert CheckMRId("image")(data)["image"] is data["image"]
            assert without_hot_voxels(channel, "P") is channel
    assert not caplog.text


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            ct(),
            r"P.nii.gz: channel 1: values from -1\d+ to \d+, expected MRI: .* air in Hounsfield units, .*; give an MRI",
        ),
        (labels(), "P.nii.gz: channel 1: values from 0 to 3, expected MRI: 4 different values.*take it out of the"),
        (
            probabilities(),
            "P.nii.gz: channel 1: values from .*, expected MRI: many values are 1, as in a probability map",
        ),
    ],
    ids=["CT", "labels", "probabilities"],
)
def test_other_volumes_than_mri_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CheckMRId("image")({"image": volume(np.stack([mri(), array]))[0]})


@pytest.mark.parametrize("value", [65535.0, 1e30, 3e38, -1e30])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_hot_voxels_are_limited_with_a_warning(value: float, size: int, caplog: pytest.LogCaptureFixture) -> None:
    for array in (mri(), np.where(mri() > 50, mri(), 0)):
        clean = torch.as_tensor(array).float()
        hot = clean.clone()
        hot[12 : 12 + size, 12 : 12 + size, 8 : 8 + size] = value
        result = without_hot_voxels(hot, "P.nii.gz: channel 1")
        assert clean.min() <= result.min() and result.max() <= clean.max()
        untouched = hot != value
        torch.testing.assert_close(result[untouched], clean[untouched])
        assert f"P.nii.gz: channel 1: {size**3} voxels lie far beyond all others" in caplog.text


@pytest.mark.parametrize("kind", [torch.float32, torch.int32, torch.uint16])
def test_the_check_of_mri_limits_hot_voxels(kind: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    image = torch.as_tensor(np.stack([mri(), mri(1)])).to(kind)
    hot = image.float()
    hot[1, 12, 12, 8] = 65535
    given = hot.to(kind)
    result = CheckMRId("image")({"image": given})["image"].float()
    assert result.max() <= image.float().max() and given.float().max() == 65535
    untouched = hot != 65535
    torch.testing.assert_close(result[untouched], image.float()[untouched])
    assert "image: channel 1: 1 voxels lie far beyond all others" in caplog.text
