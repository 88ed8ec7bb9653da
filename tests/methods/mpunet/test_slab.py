from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import CastToTyped, Compose, MapTransform, RandSpatialCropd, SpatialPadd

from common.data import CaseSampler, SampledCacheDataset
from common.errors import InputError
from common.methods.mpunet import CropSlabd

BOTH = ["image", "label"]


def case(first: int, last: int, slices: int = 30) -> dict:
    image = torch.arange(slices).float().expand(2, 6, 5, slices).clone()
    label = torch.zeros(1, 6, 5, slices)
    label[0, 4, 1, first], label[0, 2, 3, last] = 2, 1
    affine = np.diag([1.0, 1, 2.5, 1])
    return {
        "image": MetaTensor(image, affine=affine),
        "label": MetaTensor(label, affine=affine, meta={"filename_or_obj": "P_seg.nii"}),
    }


@pytest.mark.parametrize(
    ("first", "last", "margin", "start", "end"),
    [(10, 14, 3, 7, 18), (10, 10, 0, 10, 11), (2, 25, 4, 0, 30), (0, 29, 20, 0, 30), (5, 26, 3, 2, 30)],
)
def test_slices_with_foreground_and_a_margin_are_kept(first: int, last: int, margin: int, start: int, end: int) -> None:
    found = CropSlabd(BOTH, margin=margin)(case(first, last))
    assert found["image"].shape == (2, 6, 5, end - start) and found["label"].shape == (1, 6, 5, end - start)
    assert found["image"][1, 3, 3].tolist() == list(range(start, end))
    assert found["label"].sum() == case(first, last)["label"].sum()
    assert found["image"].affine[:3, 3].tolist() == [0, 0, 2.5 * start]


def test_twenty_slices_are_kept_on_either_side() -> None:
    assert CropSlabd(BOTH)(case(50, 60, slices=100))["image"].shape[3] == 20 + 11 + 20


def test_a_case_without_foreground_is_refused() -> None:
    data = case(1, 2)
    data["label"] *= 0
    with pytest.raises(InputError, match=r"P_seg.nii: found no foreground .* remove the case from the data list"):
        CropSlabd(BOTH)(data)


class Load(MapTransform):
    def __call__(self, data: dict) -> dict:
        return case(*data["slices"])


def test_patches_are_views_of_the_cached_slab() -> None:
    steps = [
        Load(BOTH),
        CropSlabd(BOTH, margin=3),
        CastToTyped(BOTH, [torch.float16, torch.uint8]),
        SpatialPadd("image", (6, 5, 12), value=-1),
        SpatialPadd("label", (6, 5, 12)),
        RandSpatialCropd(BOTH, (-1, -1, 12), random_size=False),
    ]
    cached = SampledCacheDataset([{"slices": (4, 21)}, {"slices": (10, 11)}], Compose(steps))
    runs = [cached[0, seed]["image"] for seed in range(200)]
    for run in runs:
        assert run.shape == (2, 6, 5, 12) and run.dtype == torch.float16
        assert run[0, 0, 0].diff().eq(1).all()
    assert len({run.untyped_storage().data_ptr() for run in runs}) == 1
    assert {int(run[0, 0, 0, 0]) for run in runs} == set(range(1, 25 - 12 + 1))
    short = cached[1, 0]
    assert short["image"][0, 0, 0].tolist() == [-1, -1, *range(7, 15), -1, -1]
    assert short["label"].dtype == torch.uint8 and sorted(short["label"].unique().tolist()) == [0, 1, 2]
    batch = next(iter(DataLoader(cached, sampler=CaseSampler(2, 4), batch_size=4)))
    assert batch["image"].shape == (4, 2, 6, 5, 12)
