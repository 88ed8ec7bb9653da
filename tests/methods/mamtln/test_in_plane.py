from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, MapTransform, Rand2DElasticd, RandAffined, RandFlipd

from common.data import CaseSampler, SampledCacheDataset
from common.methods.mamtln import InPlaned

BOTH = ["image", "label"]


def volume() -> dict:
    """Return a case with equal slices, each times its number; the label is the bright part of the image."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    image = torch.exp(-8 * ((x - 0.3) ** 2 + (y + 0.2) ** 2))[None, :, :, None] * torch.tensor([1.0, 2, 3, 4, 5])
    meta = {"filename_or_obj": "P1.nii.gz"}
    return {
        "case": "P1",
        "class": 1,
        "image": MetaTensor(torch.cat([image, -image]), affine=np.diag([0.7, 0.7, 5, 1]), meta=meta),
        "label": MetaTensor((image > 0.5 * image.amax((1, 2), keepdim=True)).float(), affine=np.diag([0.7, 0.7, 5, 1])),
    }


def deformed(seed: int = 0) -> InPlaned:
    rotate = RandAffined(BOTH, prob=1, rotate_range=3.1, scale_range=0.2, mode=["bilinear", "nearest"])
    bend = Rand2DElasticd(BOTH, (6, 6), (1, 2), prob=1, mode=["bilinear", "nearest"], padding_mode="zeros")
    return InPlaned(BOTH, [rotate, bend]).set_random_state(seed)


@pytest.mark.parametrize("seed", range(3))
def test_all_slices_and_channels_share_a_deformation(seed: int) -> None:
    before, after = volume(), deformed(seed)(volume())
    image = after["image"].as_tensor()
    assert image.shape == before["image"].shape and after["label"].shape == before["label"].shape
    assert (image[0, :, :, 0] - before["image"][0, :, :, 0]).abs().max() > 0.2
    for z in range(5):
        torch.testing.assert_close(image[0, :, :, z], (z + 1) * image[0, :, :, 0], atol=1e-5, rtol=1e-4)
        assert torch.equal(after["label"][0, :, :, z], after["label"][0, :, :, 0])
    torch.testing.assert_close(image[1], -image[0])
    bright = image[0, :, :, 0] > 0.5
    assert (bright.float() != after["label"][0, :, :, 0]).float().mean() < 0.03 and after["label"].any()


def test_a_flip_and_a_crop_act_on_every_slice() -> None:
    before = volume()
    flipped = InPlaned(BOTH, [RandFlipd(BOTH, prob=1, spatial_axis=0)])(before)
    for key in BOTH:
        assert torch.equal(flipped[key].as_tensor(), before[key].as_tensor().flip(1))
    cropped = InPlaned(BOTH, [CenterSpatialCropd(BOTH, (10, 8))])(before)
    for key in BOTH:
        assert torch.equal(cropped[key].as_tensor(), before[key].as_tensor()[:, 7:17, 6:14])
    alone = InPlaned("image", [RandFlipd("image", prob=1, spatial_axis=0)])(before)
    assert torch.equal(alone["label"], before["label"])


def test_the_seed_determines_the_deformation() -> None:
    first, again, other = (deformed(seed)(volume())["image"].as_tensor() for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_input_affine_and_metadata_do_not_change() -> None:
    data, kept = volume(), volume()
    after = deformed()(data)
    for key in BOTH:
        assert torch.equal(data[key], kept[key])
        np.testing.assert_array_equal(after[key].affine, np.diag([0.7, 0.7, 5, 1]))
        assert not after[key].applied_operations and not data[key].applied_operations
    assert after["image"].meta["filename_or_obj"] == "P1.nii.gz" and after["class"] == 1
    plain = {key: data[key].as_tensor() for key in BOTH}
    after = deformed()(plain)
    assert not isinstance(after["image"], MetaTensor)
    torch.testing.assert_close(after["image"], deformed()(data)["image"].as_tensor())


class Load(MapTransform):
    def __call__(self, data: dict) -> dict:
        return volume()


def test_samples_follow_their_seed_and_collate() -> None:
    cached = SampledCacheDataset([{}], Compose([Load(BOTH), deformed()]))
    first = cached[0, 5]["image"]
    assert torch.equal(first, cached[0, 5]["image"])
    assert not torch.equal(first, cached[0, 6]["image"])
    kept = first.clone()
    first.zero_()
    assert torch.equal(cached[0, 5]["image"], kept)
    for workers in (0, 1):
        loader = DataLoader(cached, sampler=CaseSampler(1, 4), batch_size=2, num_workers=workers)
        batches = list(loader)
        assert batches[0]["image"].shape == (2, 2, 24, 20, 5) and batches[0]["class"].tolist() == [1, 1]
