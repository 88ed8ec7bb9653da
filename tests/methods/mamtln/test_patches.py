from __future__ import annotations

import numpy as np
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, MapTransform

from common.data import CaseSampler, SampledCacheDataset
from common.methods.mamtln import FindTumourVoxelsd, RandCropTumourPatchd

BOTH = ["image", "label"]
SHAPE, SIZE = (20, 16, 9), (6, 4, 3)


def case(*voxels: tuple[int, int, int], shape: tuple[int, ...] = SHAPE) -> dict:
    """Return a case in which each voxel of the image is its own flat index."""
    label = torch.zeros(1, *shape, dtype=torch.uint8)
    for x, y, z in voxels:
        label[0, x, y, z] = 1
    image = torch.arange(float(np.prod(shape))).reshape(1, *shape)
    return {"image": MetaTensor(image, affine=np.eye(4)), "label": MetaTensor(label, affine=np.eye(4))}


def starts(data: dict, share: float, draws: int = 300, size: tuple[int, ...] = SIZE) -> list[tuple[int, ...]]:
    data = FindTumourVoxelsd()(data)
    crop = RandCropTumourPatchd(BOTH, size, share).set_random_state(0)
    patches = [crop(data)["image"] for _ in range(draws)]
    assert all(patch.shape == (1, *size) for patch in patches)
    shape = data["image"].shape[1:]
    return [tuple(int(i) for i in np.unravel_index(int(patch[0, 0, 0, 0]), shape)) for patch in patches]


def test_centres_are_the_voxels_of_the_tumour() -> None:
    data = case((1, 2, 3), (19, 15, 8))
    data["label"][0, 5, 5, 5] = 2
    assert FindTumourVoxelsd()(data)["centres"].tolist() == [(1 * 16 + 2) * 9 + 3, 20 * 16 * 9 - 1]
    both = FindTumourVoxelsd(labels=(1, 2), output_key="places")(data)["places"]
    assert len(both) == 3 and both.dtype == torch.int32
    assert len(FindTumourVoxelsd()(case())["centres"]) == 0


def test_patches_are_centred_on_the_tumour_within_the_volume() -> None:
    assert set(starts(case((10, 8, 4)), 1)) == {(7, 6, 3)}
    assert set(starts(case((1, 8, 8)), 1)) == {(0, 6, 6)}
    assert set(starts(case((10, 8, 4), (19, 0, 0)), 1)) == {(7, 6, 3), (14, 0, 0)}


def test_other_patches_lie_anywhere() -> None:
    for data, share in ((case((10, 8, 4)), 0.0), (case(), 1.0)):
        places = np.array(starts(data, share, 2000))
        for axis, (n, size) in enumerate(zip(SHAPE, SIZE)):
            counts = np.bincount(places[:, axis], minlength=n - size + 1)
            assert (
                len(counts) == n - size + 1
                and counts.min() > 0.6 * counts.mean()
                and counts.max() < 1.4 * counts.mean()
            )


def test_patches_reach_out_by_half_of_the_margin() -> None:
    """Expect starts from -2 to 20 - 6 + 2 along x for a margin of 3, and from 0 to 9 - 3 along z without one."""
    data, final = FindTumourVoxelsd()(case((0, 15, 8))), (3, 2, 3)
    crop = RandCropTumourPatchd(BOTH, SIZE, 0, fill=(-1.0, 0), final_size=final).set_random_state(0)
    found = np.array([crop.randomize(data["centres"], SHAPE) for _ in range(3000)])
    assert found.min(0).tolist() == [-2, -1, 0] and found.max(0).tolist() == [16, 13, 6]
    centred = RandCropTumourPatchd(BOTH, SIZE, 1, fill=(-1.0, 0), final_size=final).set_random_state(0)
    patch = centred(data)
    assert centred.randomize(data["centres"], SHAPE) == [-2, 13, 6]
    assert patch["label"].nonzero().tolist() == [[0, 2, 2, 2]]
    assert (patch["image"][0, :2] == -1).all() and (patch["image"][0, 2:, :3] >= 0).all()


def test_a_tumour_at_the_border_is_in_every_centred_patch() -> None:
    """Compare with the published sizes: 301 voxels are cut, 256 remain."""
    for edge in (0, 5, 19, 380, 399):
        data = FindTumourVoxelsd()(case((edge, 200, 3), shape=(400, 400, 6)))
        crop = RandCropTumourPatchd(BOTH, (301, 301, 6), 1, final_size=(256, 256, 6))
        assert crop(data)["label"][0, 22:278, 22:278].any()


def test_the_share_of_centred_patches_is_the_given_one() -> None:
    places = starts(case((10, 8, 4)), 0.3, 1000)
    assert 0.25 < np.mean([place == (7, 6, 3) for place in places]) < 0.35


def test_label_and_image_are_cut_at_the_same_place() -> None:
    data = FindTumourVoxelsd()(case((10, 8, 4)))
    patch = RandCropTumourPatchd(BOTH, SIZE, 1)(data)
    assert patch.keys() == {"image", "label"} and "centres" in data
    assert patch["label"].dtype == torch.uint8
    assert patch["label"].nonzero().tolist() == [[0, 3, 2, 1]]
    assert int(patch["image"][0, 3, 2, 1]) == (10 * 16 + 8) * 9 + 4


def test_a_constant_fills_both_sides_of_a_small_volume() -> None:
    data = FindTumourVoxelsd()(case((1, 2, 1), shape=(3, 16, 2)))
    patch = RandCropTumourPatchd(BOTH, (6, 4, 3), 1, fill=(-7.0, 0))(data)
    image, label = patch["image"][0], patch["label"][0]
    assert image.shape == label.shape == (6, 4, 3)
    assert torch.equal(image[1:4, :, :2], data["image"][0, :, :4].as_tensor())
    assert (image == -7).sum() == 6 * 4 * 3 - 3 * 4 * 2
    assert label.nonzero().tolist() == [[2, 2, 1]]


class Load(MapTransform):
    def __call__(self, data: dict) -> dict:
        return case((10, 8, 4))


def test_seed_decides_and_the_cache_is_not_written() -> None:
    crop = RandCropTumourPatchd(BOTH, SIZE, 0)
    cached = SampledCacheDataset([{}], Compose([Load(BOTH), FindTumourVoxelsd(), crop]))
    first = cached[0, 5]["image"]
    assert torch.equal(first, cached[0, 5]["image"]) and not torch.equal(first, cached[0, 6]["image"])
    assert not isinstance(first, MetaTensor)
    kept = first.clone()
    first.zero_()
    assert torch.equal(cached[0, 5]["image"], kept)
    batch = next(iter(DataLoader(cached, sampler=CaseSampler(1, 4), batch_size=4)))
    assert batch["image"].shape == (4, 1, *SIZE) and batch.keys() == {"image", "label"}
