from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.errors import InputError
from common.methods.multirnet import CropLungsd, LungBoxd, lung_mask
from common.transforms import ResampleAxesd, ReturnToScand

SHAPE, SPACING = (80, 60, 40), (4.0, 4.0, 5.0)


def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Return the mask of an ellipsoid; centre and semi-axes are in mm from the first voxel."""
    points = np.indices(SHAPE) * np.reshape(SPACING, (3, 1, 1, 1))
    return sum(((p - c) / r) ** 2 for p, c, r in zip(points, centre, radii)) <= 1


RIGHT = ellipsoid((100, 125, 130), (40, 55, 110))  # both are cut by the last slice
LEFT = ellipsoid((215, 125, 130), (40, 55, 110))


def chest(lung: float = -850, air: float = -1000, lungs: tuple[np.ndarray, ...] = (RIGHT, LEFT)) -> np.ndarray:
    """Return a body in air with airways between the lungs and gas in the bowel.

    It lies on a table across the field of view that leaves a groove behind the back.
    """
    noise = np.random.default_rng(0).normal(0, 15, SHAPE)
    hu = np.full(SHAPE, float(air))
    hu[:, :5] = -930  # mattress
    hu[ellipsoid((158, 120, 100), (140, 95, 4000))] = 40
    hu[ellipsoid((158, 20, 100), (26, 24, 4000))] = air  # groove between the back and the mattress
    for mask in lungs:
        hu[mask] = lung
    hu[ellipsoid((158, 125, 150), (11, 11, 50))] = air  # trachea
    hu[ellipsoid((158, 125, 100), (80, 9, 9))] = air  # bronchi, into both lungs
    hu[ellipsoid((150, 190, 40), (70, 16, 35))] = air  # bowel
    return (hu + noise).astype(np.float32)


def scan(hu: np.ndarray, spacing: tuple[float, ...] = SPACING, name: str = "chest.nii.gz") -> MetaTensor:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-100, 20, 7)
    meta = {"affine": affine, "original_affine": affine, "spatial_shape": hu.shape, "filename_or_obj": name}
    return MetaTensor(torch.as_tensor(hu)[None], meta=meta)


def is_close(mask: np.ndarray, truth: np.ndarray) -> bool:
    return bool(2 * (mask & truth).sum() > 0.95 * (mask.sum() + truth.sum()))


@pytest.mark.parametrize(("lung", "air"), [(-850, -1000), (-760, -990), (-955, -1040), (-600, -1000)])
def test_the_mask_holds_lungs_without_airways_and_bowel(lung: float, air: float) -> None:
    mask = lung_mask(chest(lung, air), SPACING)
    assert mask.dtype == bool and mask.shape == SHAPE
    assert is_close(mask, RIGHT | LEFT)
    assert mask[RIGHT | LEFT][:, None].mean() > 0.95 and mask[..., -1].any()
    assert not mask[36:43, :, 25:].any()  # trachea
    assert not mask[:, 46:].any()  # bowel
    assert not mask[:, :14].any()  # groove


def test_padding_around_the_reconstruction_is_not_air() -> None:
    hu = chest(-955, -1040)
    hu[~ellipsoid((158, 118, 100), (144, 100, 4000))] = -3024
    mask = lung_mask(hu, SPACING)
    assert is_close(mask, RIGHT | LEFT) and not mask[36:43, :, 25:].any()


def test_bowel_with_thick_walls_is_not_lung() -> None:
    hu = np.full(SHAPE, -1000.0)
    hu[ellipsoid((158, 120, 100), (140, 95, 4000))] = 40
    gas = np.zeros(SHAPE, bool)
    for i in range(8):
        gas |= ellipsoid((60 + 28 * i, 130, 100 + 25 * (i % 2)), (18, 20, 22))
    blurred = ndimage.gaussian_filter(np.where(gas, -1000.0, hu), 0.8)
    assert gas.sum() * np.prod(SPACING) / 1000 > 150
    assert not lung_mask(blurred, SPACING).any()


def test_the_field_of_view_may_cut_a_lung() -> None:
    right, front = np.s_[22:], np.s_[:, :40]
    for part in (right, front, np.s_[:, :, 18:30], np.s_[24:57]):
        assert is_close(lung_mask(chest()[part], SPACING), (RIGHT | LEFT)[part])


def test_a_small_component_is_not_a_second_lung() -> None:
    speck = ellipsoid((215, 125, 130), (16, 20, 50))
    assert 0.05 < speck.sum() / RIGHT.sum() < 0.1
    for lungs in ((RIGHT,), (RIGHT, speck)):
        mask = lung_mask(chest(lungs=lungs), SPACING)
        assert is_close(mask, RIGHT) and not mask[speck].any()
    half = ellipsoid((215, 125, 130), (30, 40, 60))
    assert is_close(lung_mask(chest(lungs=(RIGHT, half)), SPACING), RIGHT | half)


def test_vessels_and_lesions_in_a_lung_belong_to_it() -> None:
    hu = chest()
    nodule = ellipsoid((100, 125, 100), (8, 8, 10))
    hu[nodule] = 30
    assert lung_mask(hu, SPACING)[nodule].all()


def test_fine_voxels_give_the_same_lungs() -> None:
    fine = chest().repeat(3, 0).repeat(3, 1).repeat(2, 2)[1:-1]
    mask = lung_mask(torch.as_tensor(fine), (4 / 3, 4 / 3, 2.5))
    assert mask.shape == (238, 180, 80)
    assert is_close(mask, (RIGHT | LEFT).repeat(3, 0).repeat(3, 1).repeat(2, 2)[1:-1])


@pytest.mark.parametrize("value", [32768.0, -32768.0])
def test_damaged_voxels_do_not_move_the_lungs(value: float) -> None:
    hu = chest()
    for place in ((24, 30, 20), (54, 30, 26), (40, 20, 10), (2, 50, 3)):  # lungs, body and air
        hu[tuple(slice(p, p + 3) for p in place)] = value
    mask = lung_mask(hu, SPACING)
    assert is_close(mask, RIGHT | LEFT)


@pytest.mark.parametrize("lungs", [(), (ellipsoid((100, 125, 130), (16, 20, 30)),)])
def test_a_scan_without_lungs_is_refused_with_its_size(lungs: tuple[np.ndarray, ...]) -> None:
    hu = chest(lungs=lungs)
    assert not lung_mask(hu, SPACING).any()
    with pytest.raises(
        InputError,
        match=r"belly.nii.gz: no lungs found .* 320 x 240 x 200 mm \(80 x 60 x 40 voxels\) .* expected a chest CT",
    ):
        CropLungsd("image")({"image": scan(hu, name="belly.nii.gz")})


@pytest.mark.parametrize("hu", [np.zeros(SHAPE, np.float32), np.full(SHAPE, -1000, np.float32), chest() + 1024])
def test_values_other_than_hu_give_no_lungs(hu: np.ndarray) -> None:
    assert not lung_mask(hu, SPACING).any()


def test_the_crop_is_the_box_of_the_lungs_with_a_margin() -> None:
    whole = scan(chest())
    mask = lung_mask(whole[0].numpy(), SPACING)
    first, last = (f(np.argwhere(mask), axis=0) for f in (np.min, np.max))
    label = MetaTensor(torch.arange(float(mask.size)).reshape(1, *SHAPE), affine=whole.affine)
    d = CropLungsd(["image", "label"], margin=12, mask_key="lungs")({"image": whole, "label": label})
    start, stop = first - (3, 3, 2), np.minimum(last + 1 + (3, 3, 2), SHAPE)
    start[0], stop[0] = min(start[0], 80 - stop[0]), max(stop[0], 80 - start[0])
    box = tuple(slice(a, b) for a, b in zip(start, stop))
    assert stop[2] == 40
    assert torch.equal(d["label"].as_tensor(), label.as_tensor()[(slice(None), *box)])
    assert torch.equal(d["image"].as_tensor(), whole.as_tensor()[(slice(None), *box)])
    assert d["lungs"].dtype == torch.bool and torch.equal(d["lungs"][0], torch.as_tensor(mask[box]))
    assert np.allclose(d["image"].affine[:3, 3], np.array([-100, 20, 7]) + start * SPACING)
    assert CropLungsd("image")({"image": whole}).keys() == {"image"}


@pytest.mark.parametrize("kept", [True, False])
def test_lesions_outside_the_box_are_named_and_may_be_kept(kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    whole, seed = scan(chest()), np.random.default_rng(0)
    crop = CropLungsd(["image", "label"], margin=0, mask_key="lungs", lesion_key="label" if kept else None)
    alone = CropLungsd("image", margin=0)({"image": whole})["image"]
    for _ in range(5):
        caplog.clear()
        lesion = np.zeros(SHAPE)
        place = [int(seed.integers(n - 3)) for n in SHAPE]
        lesion[tuple(slice(p, p + 3) for p in place)] = 1
        lesion[:2, -2:, :1] = 1  # in a corner, where no lung is
        label = MetaTensor(torch.as_tensor(lesion)[None], meta={**whole.meta, "filename_or_obj": "chest_seg.nii.gz"})
        d = crop({"image": whole, "label": label})
        assert d["image"].shape == d["label"].shape == d["lungs"].shape
        assert (d["label"].sum() == lesion.sum()) == kept
        assert (d["image"].shape == alone.shape) != kept
        outcome = "the box is enlarged" if kept else "they are cut off"
        assert "chest_seg.nii.gz: " in caplog.text and outcome in caplog.text
        voxel = np.linalg.solve(whole.affine.numpy(), d["label"].affine.numpy())[:3, 3].round().astype(int)
        for found in d["label"][0].nonzero().numpy():
            assert lesion[tuple(found + voxel)] == 1
    caplog.clear()
    inside = MetaTensor(torch.as_tensor(RIGHT)[None].float(), meta=whole.meta)
    assert crop({"image": whole, "label": inside})["image"].shape[3] == alone.shape[3]


def test_the_box_holds_the_side_of_a_lung_without_air() -> None:
    for lung, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
        d = CropLungsd(["image", "other"])({"image": scan(chest(lungs=(lung,))), "other": scan(other)})
        assert d["other"].sum() == other.sum()


def test_the_result_holds_the_box_in_voxels_of_the_scan() -> None:
    turned = np.array([[0, 0, -2.5, 90], [-2, 0, 0, 80], [0, 3, 0, -7], [0, 0, 0, 1.0]])  # x is the third axis
    hu = torch.as_tensor(chest()).permute(1, 2, 0).flip(0, 2)[:, ::2]
    affine = np.array([[0, 0, -4, 150], [-4, 0, 0, 120], [0, 10, 0, 3], [0, 0, 0, 1.0]])
    assert (np.sign(turned) * (turned != 0))[:3, :3].tolist() == np.sign(affine)[:3, :3].tolist()
    meta = {"affine": affine, "original_affine": affine, "spatial_shape": np.array(hu.shape)}
    resampled = ResampleAxesd("image", pixdim=(3, 3, 3))({"image": MetaTensor(hu[None], meta=meta)})
    d = LungBoxd()({**CropLungsd("image", mask_key="lungs")(resampled), "result": {"class": "CAP"}})
    seen = ReturnToScand("pred")({**d, "pred": torch.ones_like(d["image"].as_tensor())})["pred"][0].nonzero()
    assert d["result"] == {
        "class": "CAP",
        "lungs": {"first": seen.min(0).values.tolist(), "last": seen.max(0).values.tolist()},
    }
    alone = {"image": d["image"], "lungs": d["lungs"]}
    assert LungBoxd()(alone)["result"]["lungs"] == d["result"]["lungs"]
    assert "result" not in LungBoxd()(resampled)  # nothing cropped it to the lungs
