from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRanged
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError
from common.transforms import CheckHounsfieldd, ClipScaled, ClipStandardized

VALUES = (-3024.0, -200.0, -50.0, 0.0, 75.0, 200.0, 3000.0)
STOMACH = {"low": -50.0, "high": 150.0, "mean": 60.0, "sd": 40.0, "cases": 3, "digest": "x"}


def image(dtype: torch.dtype = torch.float32) -> MetaTensor:
    return MetaTensor(torch.tensor(VALUES, dtype=dtype).reshape(1, 7, 1, 1), affine=np.diag([1.0, 2, 3, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int16])
def test_values_by_hand(dtype: torch.dtype) -> None:
    scaled = ClipScaled("image", -200, 200, (-1, 1))({"image": image(dtype)})["image"]
    assert scaled.flatten().tolist() == [-1, -1, -0.25, 0, 0.375, 1, 1]
    standardised = ClipStandardized("image", STOMACH)({"image": image(dtype)})["image"]
    assert standardised.flatten().tolist() == pytest.approx([-2.75, -2.75, -2.75, -1.5, 0.375, 2.25, 2.25])
    for result in (scaled, standardised):
        assert isinstance(result, MetaTensor) and result.dtype == torch.float32
        np.testing.assert_array_equal(result.affine, np.diag([1.0, 2, 3, 1]))


@pytest.mark.parametrize("to", [(0.0, 1.0), (-1.0, 1.0), (0.2, 0.7)])
def test_a_window_is_monais(to: tuple[float, float]) -> None:
    volume = {"image": MetaTensor(torch.randn(1, 6, 5, 4) * 500)}
    expected = ScaleIntensityRanged("image", -1000, 400, *to, clip=True)(volume)["image"]
    torch.testing.assert_close(ClipScaled("image", -1000, 400, to)(volume)["image"], expected, atol=1e-6, rtol=0)


def test_the_default_range_is_0_to_1() -> None:
    scaled = ClipScaled("image", -200, 200)({"image": image()})["image"]
    assert (float(scaled.min()), float(scaled.max())) == (0, 1)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_input_stays_as_it_was(tracked: bool) -> None:
    volume = image() if tracked else image().as_tensor()
    data = {"image": volume}
    result = ClipStandardized("image", STOMACH)(data)["image"]
    assert data["image"] is volume and volume.flatten().tolist() == list(VALUES)
    assert isinstance(result, MetaTensor) == tracked


class Made(TorchDispatchMode):
    """Counts the volumes that operations make, as against those that they change."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= 1000:
            self.storages.add(result.untyped_storage().data_ptr())
        return result


def test_the_result_is_the_only_volume_that_is_made() -> None:
    volume = torch.randn(1, 10, 10, 10)
    with Made() as made:
        kept = ClipScaled("image", -1, 1)({"image": volume})
    assert made.storages == {kept["image"].untyped_storage().data_ptr()}


@pytest.mark.parametrize(("low", "high", "to"), [(200, -200, (0, 1)), (0, 0, (0, 1)), (-200, 200, (1, 1))])
def test_an_empty_window_is_refused(low: float, high: float, to: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}, .*: expected each to rise"):
        ClipScaled("image", low, high, to)


def test_unsigned_values_cannot_be_a_ct() -> None:
    """As another program may hand them over."""
    with pytest.raises(InputError, match="image: values from 1 to 9, expected a CT"):
        CheckHounsfieldd("image")({"image": torch.tensor([1, 9], dtype=torch.uint16).reshape(1, 2, 1, 1)})


def test_what_cannot_be_a_ct_is_refused() -> None:
    check = CheckHounsfieldd("image")
    ct = MetaTensor(torch.tensor([-51.0, 40, 900]).reshape(1, 3, 1, 1))
    assert check({"image": ct})["image"] is ct
    for values in ([0.0, 300, 1200], [-49.0, 0, 50]):
        mri = MetaTensor(torch.tensor(values).reshape(1, 3, 1, 1), meta={"filename_or_obj": "T1.nii.gz"})
        with pytest.raises(
            InputError, match=rf"^T1.nii.gz: values from {values[0]:g} to {values[-1]:g}, expected a CT"
        ):
            check({"image": mri})
