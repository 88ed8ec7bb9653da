from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.methods.multirnet import CropLesionPatchd, FindLesionCentresd, RandCropLesionPatchd

BOTH = ["image", "label"]
SHAPE, SIZE = (20, 16, 9), (6, 4, 3)


def case(label: torch.Tensor | None = None, lungs: torch.Tensor | None = None) -> dict:
    """Return a case in which each voxel of the image is its own number, from 1."""
    image = torch.arange(1.0, np.prod(SHAPE) + 1).reshape(1, *SHAPE)
    affine = np.array([[2.0, 0, 0, 5], [0, 3, 0, -4], [0, 0, 4, 1], [0, 0, 0, 1]])
    label = torch.zeros(SHAPE) if label is None else label
    lungs = torch.zeros(SHAPE) if lungs is None else lungs
    return {
        "image": MetaTensor(image, affine=affine),
        "label": MetaTensor(label[None].to(torch.uint8), affine=affine),
        "lungs": lungs[None].bool(),
    }


def boxes(*parts: tuple[slice, slice, slice]) -> torch.Tensor:
    mask = torch.zeros(SHAPE)
    for part in parts:
        mask[part] = 1
    return mask


def test_centroids_of_lesions_the_largest_first() -> None:
    small, large, speck = np.s_[2:4, 3:6, 1:3], np.s_[10:15, 8:11, 4:7], np.s_[18:20, 0:2, 0:2]
    data = case(boxes(small, large, speck) * 2)
    d = FindLesionCentresd()(data)
    assert d["centres"].tolist() == [[12, 9, 5], [2, 4, 2]]  # 2.5 and 1.5 are rounded to even; 8 voxels do not count
    assert d["centres"].dtype == torch.int32 and "lungs" not in d and "lungs" in data
    assert len(FindLesionCentresd(smallest=8, output_key="places")(data)["places"]) == 3
    assert len(FindLesionCentresd(smallest=19)(data)["centres"]) == 1


def test_without_lungs_the_centres_are_spread_over_the_scan() -> None:
    data = {key: value for key, value in case().items() if key != "lungs"}
    centres = FindLesionCentresd(samples=50)(data)["centres"]
    assert centres[0].tolist() == [10, 8, 4] and len(centres) == 51  # 9.5 and 7.5 are rounded to even
    assert centres[1:].min(0).values.tolist() == [0, 0, 0] and centres[1:, 0].max() == SHAPE[0] - 1
    data["label"] = data["label"].clone()
    data["label"][0, 2:6, 3:5, 1:4] = 1
    assert FindLesionCentresd()(data)["centres"].tolist() == [[4, 4, 2]]


def test_small_lesions_count_where_there_is_no_larger() -> None:
    diagonal = boxes(np.s_[4:5, 4:5, 4:5], np.s_[5:6, 5:6, 5:6], np.s_[6:7, 6:7, 6:7], np.s_[16:17, 1:2, 1:2])
    assert FindLesionCentresd()(case(diagonal))["centres"].tolist() == [[5, 5, 5], [16, 1, 1]]


def test_without_lesions_the_centres_are_in_the_lungs() -> None:
    right, left = np.s_[1:6, 3:12, 0:9], np.s_[12:19, 2:13, 1:8]
    lungs = boxes(right, left)
    centres = FindLesionCentresd(samples=100)(case(lungs=lungs))["centres"]
    assert centres[0].tolist() == [15, 7, 4]  # of the larger lung
    assert len(centres) == 101 and len({tuple(c) for c in centres[1:].tolist()}) == 100
    assert all(lungs[tuple(c)] for c in centres.tolist())
    share = (centres[1:, 0] < 9).float().mean()
    assert abs(share - 5 * 9 * 9 / (5 * 9 * 9 + 7 * 11 * 7)) < 0.02
    assert FindLesionCentresd()(case(lungs=lungs.flip(0)))["centres"][0].tolist() == [4, 7, 4]
    assert torch.equal(FindLesionCentresd(samples=100)(case(lungs=lungs))["centres"], centres)
    assert len(FindLesionCentresd(samples=100)(case(lungs=boxes(np.s_[3:5, 3:5, 3:5])))["centres"]) == 9


def first_voxels(crop: RandCropLesionPatchd, data: dict, draws: int) -> list[tuple[int, ...]]:
    numbers = [int(crop(data)["image"][0, 0, 0, 0]) - 1 for _ in range(draws)]
    return [tuple(int(i) for i in np.unravel_index(number, SHAPE)) for number in numbers]


def test_every_centre_and_every_offset_is_drawn() -> None:
    data = {**case(), "centres": torch.tensor([[6, 8, 4], [13, 8, 4]], dtype=torch.int32)}
    starts = Counter(first_voxels(RandCropLesionPatchd(BOTH, SIZE, (2, 1, 1)).set_random_state(0), data, 3600))
    expected = {
        (c + x - 3, 8 + y - 2, 4 + z - 1) for c in (6, 13) for x in range(-2, 3) for y in (-1, 0, 1) for z in (-1, 0, 1)
    }
    assert starts.keys() == expected
    assert min(starts.values()) > 15 and max(starts.values()) < 75  # 40 each
    still = RandCropLesionPatchd(BOTH, SIZE, (0, 0, 0)).set_random_state(0)
    assert {*first_voxels(still, data, 20)} == {(3, 6, 3), (10, 6, 3)}
    with pytest.raises(ValueError, match=r"jitter=\(3, 1, 1\): expected less than half of roi_size=\(6, 4, 3\)"):
        RandCropLesionPatchd(BOTH, SIZE, (3, 1, 1))


def test_a_seed_gives_the_same_patches() -> None:
    data = {**case(), "centres": torch.tensor([[6, 8, 4], [13, 8, 4]])}
    crop = RandCropLesionPatchd(BOTH, SIZE, (2, 1, 1))
    draws = [first_voxels(crop.set_random_state(seed), data, 10) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("crop", [RandCropLesionPatchd(BOTH, SIZE, (0, 0, 0)), CropLesionPatchd(BOTH, SIZE)])
def test_voxels_outside_the_volume_are_0(crop: RandCropLesionPatchd | CropLesionPatchd) -> None:
    label = boxes(np.s_[0:1, 15:16, 8:9])
    data = {**case(label), "centres": torch.tensor([[0, 15, 8]], dtype=torch.int32)}
    d = crop(data)
    assert d["image"].shape == d["label"].shape == (1, *SIZE) and "centres" not in d and "centres" in data
    assert d["label"].dtype == torch.uint8 and d["label"][0].nonzero().tolist() == [[3, 2, 1]]
    assert torch.equal(d["image"][0, 3:, :3, :2], data["image"][0, :3, 13:, 7:])
    assert (d["image"] == 0).sum() == 6 * 4 * 3 - 3 * 3 * 2
    other = crop({**case(), "centres": torch.tensor([[19, 0, 0]], dtype=torch.int32)})["image"][0]
    assert torch.equal(other[:4, 2:, 1:], data["image"][0, 16:, :2, :2]) and (other == 0).sum() == 72 - 4 * 2 * 2


def test_patches_of_cached_cases_are_copies_of_their_type() -> None:
    data = {**case(), "centres": torch.tensor([[10, 8, 4]], dtype=torch.int32)}
    data["image"] = data["image"].half()
    before = data["image"].clone()
    for place in ([10, 8, 4], [0, 0, 0]):
        d = RandCropLesionPatchd(BOTH, SIZE, (0, 0, 0))({**data, "centres": torch.tensor([place])})
        assert d["image"].dtype == torch.float16 and not isinstance(d["image"], MetaTensor)
        d["image"].fill_(-1)
        assert torch.equal(data["image"], before)


def test_the_patch_of_the_test_protocol_keeps_its_affine() -> None:
    data = {**case(), "centres": torch.tensor([[1, 8, 4], [13, 8, 4]], dtype=torch.int32)}
    for _ in range(3):
        d = CropLesionPatchd(BOTH, SIZE)(data)
        for key in BOTH:
            assert np.allclose(d[key].affine[:3, 3], [5 + 2 * (1 - 3), -4 + 3 * (8 - 2), 1 + 4 * (4 - 1)])
            assert np.allclose(d[key].affine[:3, :3], np.diag([2, 3, 4]))
        assert int(d["image"][0, 3, 2, 1]) == (1 * 16 + 8) * 9 + 4 + 1
