from __future__ import annotations

import pickle

import cc3d
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from scipy import ndimage

from common.errors import InputError
from common.methods.omnet import BratsLabelsd, CropBraind, NormalizeBraind, brain_mask

from .brain_scan import AFFINE, BRAIN, SHAPE, SLICES, scan, tensor


def overlap(mask: torch.Tensor) -> float:
    found = mask.numpy()
    return 2 * (found & BRAIN).sum() / (found.sum() + BRAIN.sum())


@pytest.mark.parametrize(
    "image",
    [
        scan(),
        scan(background=-1.37, low=-1.3, high=4),
        scan(background=1024.0, low=1100, high=2000),
        scan(background=300.0, low=-50, high=200),  # darker than its background
        scan() / 900 - 3,
    ],
    ids=["zero", "normalised", "offset", "dark", "slope and intercept"],
)
def test_a_constant_background_is_found_exactly(image: np.ndarray) -> None:
    np.testing.assert_array_equal(brain_mask(image), BRAIN)
    assert brain_mask(tensor(image)).dtype == torch.bool and not isinstance(brain_mask(tensor(image)), MetaTensor)


def test_zeros_are_background_unless_another_modality_differs() -> None:
    image = scan()
    image[0, 15:20, 15:20, 10:15] = 0  # a hole in one modality
    image[:, 12, 12, 12] = 0  # and in all
    image[1, 2, 2, 2] = 1e-4  # a speck
    image[0, 3, 3, 3] = -5
    np.testing.assert_array_equal(brain_mask(image), (image != 0).any(0))
    assert not brain_mask(image)[12, 12, 12] and brain_mask(image)[2, 2, 2] and brain_mask(image)[3, 3, 3]


def test_a_brain_may_reach_the_border() -> None:
    image = scan()[:, 11:, :, 7:]
    assert (image[:, 0] != 0).any() and (image[..., 0] != 0).any()
    np.testing.assert_array_equal(brain_mask(image), (image != 0).any(0))


CROPS = {
    "slab": np.s_[:, :, 11:18],
    "thin": np.s_[:, :, 14:16],
    "tight": SLICES,
    "tight slab": (*SLICES[:2], slice(11, 17)),
    "sagittal": np.s_[14:22, :, :],
    "half": np.s_[:18, 7:31, 5:23],
    "corner": np.s_[9:18, 7:19, 5:14],
}


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (0.37, -11.3), (1, 1024), (1e-3, -3), (-1, 500)])
def test_crops_on_a_constant_background_are_exact(crop: tuple[slice, ...], factor: float, offset: float) -> None:
    image = (scan(low=1, high=900) * np.float32(factor) + np.float32(offset))[(slice(None), *crop)]
    np.testing.assert_array_equal(brain_mask(image), BRAIN[crop])


@pytest.mark.parametrize("crop", [CROPS[name] for name in ("slab", "thin", "tight", "tight slab", "sagittal", "half")])
@pytest.mark.parametrize("offset", [0.0, -2000.0])
def test_crops_on_a_background_of_noise_are_close(crop: tuple[slice, ...], offset: float) -> None:
    image = scan(noise=8)
    image = np.hypot(image, 8 * np.random.default_rng(1).standard_normal(image.shape)).astype(np.float32) + offset
    found = brain_mask(image[(slice(None), *crop)]).numpy()
    truth = BRAIN[crop]
    assert 2 * (found & truth).sum() > 0.995 * (found.sum() + truth.sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.0, 10.0])
def test_a_crop_from_within_the_brain_is_refused(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    tissue = ndimage.gaussian_filter(rng.normal(0, 1, (2, 40, 40, 40)), (0, 2, 2, 2))
    image = 400 + 100 * tissue / tissue.std() + noise * rng.standard_normal(tissue.shape)
    image[:, 10:16, 10:16, 10:16] += 600  # a bright tumour
    message = r"P_flair.nii.gz: channel 0: no brain found: .* give a skull-stripped volume"
    with pytest.raises(InputError, match=message):
        NormalizeBraind("image")({"image": tensor(image)})
    with pytest.raises(InputError, match="no brain"):
        BratsLabelsd("label")({"image": tensor(image), "label": tensor(np.zeros((1, 40, 40, 40)))})


def test_a_value_just_above_the_background_is_brain() -> None:
    image = scan(background=1024)
    image[:, 3, 3, 3] = np.nextafter(np.float32(1024), np.float32(2000)) + np.float32(0.01)
    assert brain_mask(image)[3, 3, 3]


@pytest.mark.parametrize("value", [1e5, 3e38, -1e30])
def test_damaged_voxels_do_not_change_the_contrast(value: float, caplog: pytest.LogCaptureFixture) -> None:
    intact = scan()
    damaged = intact.copy()
    damaged[0, 17:20, 17:20, 13:16] = value
    expected, found = (NormalizeBraind("image")({"image": tensor(v)})["image"] for v in (intact, damaged))
    untouched = damaged == intact
    torch.testing.assert_close(found[untouched], expected[untouched], atol=0.15, rtol=0)
    assert "P_flair.nii.gz: channel 0: 27 voxels lie far beyond all others" in caplog.text


@pytest.mark.parametrize("offset", [0.0, 500.0, -2000.0])
@pytest.mark.parametrize("kind", ["normal", "magnitude", "rounded"])
def test_the_brain_is_found_on_noise(offset: float, kind: str) -> None:
    image = scan(noise=10)
    if kind == "magnitude":  # Rician, as a scanner's
        image = np.hypot(image, 10 * np.random.default_rng(1).standard_normal(image.shape)).astype(np.float32)
    if kind == "rounded":
        image = np.round(image / 20)  # a background of mostly 0, some 1 and -1
        assert 0.5 < (image[:, 0] == 0).mean() < 0.9
    image += offset
    image[:, 17:20, 17:20, 13:16] = offset  # a dark ventricle
    image[:, 3, 3, 3] = 800 + offset  # a bright spot outside
    mask = brain_mask(image)
    assert overlap(mask) > 0.999
    assert mask[18, 18, 14] and not mask[3, 3, 3]


def test_modalities_may_have_different_backgrounds() -> None:
    image = scan()
    image[0] = np.where(BRAIN, image[0], -4)
    image[1] = scan(noise=8)[1]
    assert overlap(brain_mask(image)) > 0.999
    only = scan()
    only[1] = 7  # a modality without any contrast adds nothing
    np.testing.assert_array_equal(brain_mask(only), BRAIN)


def test_a_resampled_constant_is_background() -> None:
    image = scan(background=1000.0, low=1100, high=2000)
    jitter = np.random.default_rng(1).choice([-1e-4, 0, 1e-4], image.shape, p=[0.02, 0.96, 0.02])
    np.testing.assert_array_equal(brain_mask((image + jitter).astype(np.float32)), BRAIN)


@pytest.mark.parametrize(("noise", "searches"), [(0, 0), (10, 1)])
def test_components_are_searched_once_and_for_noise_alone(
    noise: float, searches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search takes longer than everything else."""
    calls = []
    search = cc3d.largest_k
    monkeypatch.setattr("cc3d.largest_k", lambda *args, **options: calls.append(1) or search(*args, **options))
    assert overlap(brain_mask(scan(noise=noise))) > 0.999
    assert len(calls) == searches


def test_each_modality_is_normalised_over_the_brain() -> None:
    image = scan()
    data = {"image": tensor(np.stack([image[0], 5 * image[1] - 3000 * BRAIN])), "other": 1}
    before = data["image"].clone()
    result = NormalizeBraind("image")(data)["image"]
    assert torch.equal(data["image"], before) and isinstance(result, MetaTensor) and result.dtype == torch.float32
    for found, source in zip(result.numpy(), before.numpy().astype(np.float64)):
        expected = (source - source[BRAIN].mean()) / source[BRAIN].std()
        np.testing.assert_allclose(found[BRAIN], expected[BRAIN], atol=1e-4)
        assert (found[~BRAIN] == 0).all()
    np.testing.assert_array_equal(result.affine, AFFINE)
    np.testing.assert_array_equal(brain_mask(result), BRAIN)


def test_offset_and_scale_do_not_change_the_result() -> None:
    plain = NormalizeBraind("image")({"image": tensor(scan())})["image"]
    for factor, offset in ((1.0, 1000.0), (1e-6, 0.0), (-2.0, 30.0)):
        moved = NormalizeBraind("image")({"image": tensor(scan() * factor + offset)})["image"]
        torch.testing.assert_close(moved * np.sign(factor), plain, atol=1e-3, rtol=0)
    noisy = NormalizeBraind("image")({"image": tensor(scan(noise=5) - 100)})["image"].numpy()
    assert abs(noisy[:, BRAIN].mean()) < 0.02 and np.mean(noisy[:, ~BRAIN] == 0) > 0.999


def test_a_tiny_deviation_is_raised_to_its_floor() -> None:
    image = scan() * 1e-12
    result = NormalizeBraind("image")({"image": tensor(image)})["image"].numpy()
    expected = (image[0] - image[0][BRAIN].mean(dtype=np.float64)) / 1e-8
    np.testing.assert_allclose(result[0][BRAIN], expected[BRAIN], rtol=1e-3, atol=1e-6)


def test_images_without_brain_or_contrast_are_refused() -> None:
    with pytest.raises(InputError, match=r"P_flair.nii.gz: no brain"):
        NormalizeBraind("image")({"image": tensor(np.full((2, *SHAPE), 3.0))})
    with pytest.raises(InputError, match=r"P_flair.nii.gz: no brain"):
        CropBraind("image")({"image": tensor(np.zeros((2, *SHAPE)))})
    image = scan()
    image[1] = BRAIN * 7
    with pytest.raises(InputError, match=r"P_flair.nii.gz: channel 1 has no contrast: every voxel of the brain is 7"):
        NormalizeBraind("image")({"image": tensor(image)})


@pytest.mark.parametrize(
    ("divisor", "margin", "shape"),
    [
        (1, 0, (18, 24, 18)),
        (8, 0, (24, 24, 24)),
        ((8, 16, 4), 0, (24, 32, 20)),
        (8, 1, (24, 32, 24)),
        (64, 0, (64,) * 3),
    ],
)
def test_the_crop_holds_the_brain_on_a_valid_size(
    divisor: int | tuple[int, ...], margin: int, shape: tuple[int, ...]
) -> None:
    image, index = scan(), np.arange(np.prod(SHAPE)).reshape(1, *SHAPE)
    crop = CropBraind(["image", "index"], divisor=divisor, margin=margin)
    data = pickle.loads(pickle.dumps(crop))({"image": tensor(image), "index": tensor(index)})
    assert data["image"].shape == (2, *shape) and data["index"].shape == (1, *shape)
    assert (data["image"] != 0).any(0).sum() == BRAIN.sum()

    # each voxel holds what the scan holds at its position by the affine
    to_scan = np.linalg.inv(AFFINE) @ data["index"].affine.numpy()
    np.testing.assert_array_equal(data["image"].affine, data["index"].affine)
    np.testing.assert_allclose(to_scan[:3, :3], np.eye(3))
    positions = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) + np.round(to_scan[:3, 3]).astype(int)
    inside = ((positions >= 0) & (positions < SHAPE)).all(-1)
    x, y, z = positions[inside].T
    np.testing.assert_array_equal(data["index"][0].numpy()[inside], index[0, x, y, z])
    np.testing.assert_array_equal(data["image"].numpy()[:, inside], image[:, x, y, z])
    assert (data["image"].numpy()[:, ~inside] == 0).all()


def test_invertd_restores_a_prediction() -> None:
    steps = Compose([CropBraind("image")])
    data = steps({"image": tensor(scan())})
    data["pred"] = MetaTensor((data["image"] != 0).any(0, keepdim=True).float().as_tensor(), meta=data["image"].meta)
    back = Invertd("pred", steps, orig_keys="image", nearest_interp=False)(data)["pred"]
    np.testing.assert_array_equal(back[0].numpy(), BRAIN)
    np.testing.assert_array_equal(back.affine, AFFINE)
