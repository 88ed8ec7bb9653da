from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from scipy import ndimage
from skimage.filters import threshold_otsu

from common.errors import InputError
from common.methods.mmfnet import CropBodyd, NormalizeBodyd, body_box
from common.methods.mmfnet.body import body_mask, close_slices, histogram


def head(shape: tuple[int, int, int] = (60, 50, 12), offset: float = 0.0) -> np.ndarray:
    """Return an ellipsoid of 300 to 500 with a darker skin, in a noisy background of 0 to 30, all plus ``offset``."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    radius = (grid**2 * np.array([2.0, 3.0, 1.2])[:, None, None, None]).sum(0)
    background, skin, inside = rng.uniform(0, 30, shape), rng.uniform(30, 300, shape), rng.uniform(300, 500, shape)
    return np.where(radius < 1, inside, np.where(radius < 1.1, skin, background)).astype(np.float32) + offset


def image(*channels: np.ndarray, spacing: float = 1.0) -> MetaTensor:
    return MetaTensor(np.stack(channels), affine=np.diag([1.25 * spacing, 0.75 * spacing, 4, 1]))


def test_body_box_is_the_largest_component() -> None:
    volume = head()
    start, end = body_box(volume)
    inside = np.argwhere(volume > threshold_otsu(volume))
    assert threshold_otsu(volume) == pytest.approx(165, abs=100)
    np.testing.assert_array_equal(start, inside.min(0))
    np.testing.assert_array_equal(end, inside.max(0) + 1)
    volume[0, 0, 0] = 900
    np.testing.assert_array_equal(body_box(volume)[0], start)


@pytest.mark.parametrize("offset", [0.0, -1024.0, 50.0])
def test_body_mask_closes_cavities_and_ignores_an_offset(offset: float) -> None:
    volume = head(offset=offset)
    body = volume > 300 + offset
    volume[27:32, 22:27, 6] = offset  # a cavity of 5 x 5
    mask = body_mask(volume, closing_radius=5)
    assert mask[27:32, 22:27, 6].all()
    assert (mask | ~body).all()
    assert not body_mask(volume, closing_radius=0)[27:32, 22:27, 6].any()


def test_closing_is_that_of_an_octagon_close_to_a_disc() -> None:
    volume = np.zeros((41, 41, 2), np.float32)
    volume[20, 20, 0] = 1
    square, diamond = np.ones((3, 3), bool), ndimage.generate_binary_structure(2, 1)
    octagon = ndimage.binary_dilation(ndimage.binary_dilation(volume[..., 0] > 0, diamond, 6), square, 4)
    distance = np.hypot(*(np.indices((41, 41)) - 20))
    assert octagon[distance <= 9.5].all()
    assert not octagon[distance > 11.5].any()


def test_slices_of_one_value_hold_no_body() -> None:
    volume = head()
    volume[:, :, 0] = 0
    assert not body_mask(volume, 3)[:, :, 0].any()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("offset", [0.0, -1024.0])
def test_slices_of_noise_do_not_move_the_statistics(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    volume = head(offset=offset)
    noise = np.abs(rng.normal(0, 12, (*volume.shape[:2], 8))).astype(np.float32) + offset
    alone, padded = (body_mask(v, 3) for v in (volume, np.concatenate([noise, volume, noise], 2)))
    assert not padded[..., :8].any() and not padded[..., -8:].any()
    np.testing.assert_array_equal(padded[..., 8:-8], alone)


def test_slices_that_a_coil_shows_darker_are_body() -> None:
    volume = head() * np.linspace(1, 0.35, 12, dtype=np.float32)
    assert body_mask(volume, 3).any((0, 1))[1:-1].all()  # the ellipsoid ends there


@pytest.mark.parametrize("value", [1e5, 3e38, -1e30])
def test_a_hot_block_leaves_the_contrast(value: float, caplog: pytest.LogCaptureFixture) -> None:
    intact, damaged = head(), head()
    damaged[28:31, 24:27, 5:8] = value
    expected, found = (NormalizeBodyd("image", 3)({"image": image(v)})["image"] for v in (intact, damaged))
    untouched = damaged[None] == intact[None]
    torch.testing.assert_close(found[untouched], expected[untouched], atol=0.15, rtol=0)
    assert "channel 0: 27 voxels" in caplog.text


def test_normalisation_is_of_the_body_of_each_channel() -> None:
    volume = head()
    normalised = NormalizeBodyd("image", closing_radius=3)({"image": image(volume, 7 * volume + 3)})["image"]
    body = body_mask(volume, 3)
    np.testing.assert_allclose(normalised[0].numpy()[body].mean(), 0, atol=1e-4)
    np.testing.assert_allclose(normalised[0].numpy()[body].std(), 1, atol=1e-4)
    np.testing.assert_allclose(normalised[1], normalised[0], atol=1e-3)


def test_closing_radius_is_in_millimetres() -> None:
    volume = head()
    volume[27:32, 22:27] = 0
    fine, coarse = (NormalizeBodyd("image", 3)({"image": image(volume, spacing=s)})["image"] for s in (1.0, 6.0))
    assert not torch.allclose(fine, coarse)  # closing by 3 voxels counts the cavity as body, by 0.5 it does not


def test_no_contrast_is_an_error() -> None:
    with pytest.raises(InputError, match="image: channel 1 has no contrast"):
        NormalizeBodyd("image")({"image": image(head(), np.ones((60, 50, 12)))})


@pytest.mark.parametrize(
    ("roi", "margin"), [((32, 32, 16), (0, 0, 0)), ((80, 24, 4), (0, 0, 0)), ((32, 32, 4), (9, 9, 2))]
)
def test_crop_is_centred_padded_and_inverted(roi: tuple[int, ...], margin: tuple[int, ...]) -> None:
    volume = head()
    start, end = body_box(volume)
    crop = CropBodyd(["image", "label"], roi, margin=margin, pad_value=-7)
    data = crop({"image": image(volume), "label": image(np.ones_like(volume))})
    slices = max(roi[2], end[2] - start[2])
    assert data["image"].shape == (1, roi[0] + 2 * margin[0], roi[1] + 2 * margin[1], slices + 2 * margin[2])
    inside = data["label"] == 1
    assert (data["image"][~inside] == -7).all()
    assert inside[0, :, :, margin[2]].any()  # the first slice of the body comes after the margin
    affine_to_voxel = np.linalg.inv(np.diag([1.25, 0.75, 4, 1])) @ data["image"].affine.numpy()
    first = affine_to_voxel[:3, 3]
    np.testing.assert_allclose(first[2], start[2] - margin[2])
    np.testing.assert_allclose(first[:2], (start + end)[:2] // 2 - np.array(roi[:2]) // 2 - margin[:2], atol=1)

    inverted = crop.inverse(data)
    back, kept = inverted["image"], inverted["label"][0] == 1
    assert back.shape == (1, *volume.shape)
    np.testing.assert_array_equal(back.affine, np.diag([1.25, 0.75, 4, 1]))
    np.testing.assert_array_equal(back[0][kept], volume[kept])
    assert (back[0][~kept] == 0).all()


def test_prediction_returns_through_invertd() -> None:
    volume = head()
    steps = Compose([CropBodyd("image", (32, 32, 8))])
    data = steps({"image": image(volume)})
    data["pred"] = MetaTensor(torch.ones_like(data["image"]).as_tensor(), meta=data["image"].meta)
    pred = Invertd("pred", steps, orig_keys="image", nearest_interp=False)(data)["pred"]
    assert pred.shape == (1, *volume.shape)
    assert pred.sum() == 32 * 32 * min(data["image"].shape[3], 12)


@pytest.mark.parametrize("radius", [0, 1, 3, 10])
def test_closing_is_scipys(radius: int) -> None:
    square = round(radius * 0.4)
    steps = [(ndimage.generate_binary_structure(2, 1), radius - square), (np.ones((3, 3), bool), square)]
    noise = np.random.default_rng(0).normal(size=(70, 53, 11))
    mask = ndimage.gaussian_filter(noise, (3, 3, 0)) > 0.02  # reaches the border
    expected = mask.copy()
    for image in np.moveaxis(expected, 2, 0):
        for structure, n in steps:
            image[:] = ndimage.binary_dilation(image, structure, iterations=n) if n else image
        for structure, n in steps:
            image[:] = ndimage.binary_erosion(image, structure, iterations=n, border_value=1) if n else image
    assert (expected != mask).any() == (radius > 0)
    packed = np.packbits(mask, axis=2)
    close_slices(packed, radius)
    close_slices(mask, radius)
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(np.unpackbits(packed, axis=2, count=11), expected)


@pytest.mark.parametrize("values", [(0.0, 1.0), (-7.3, 1e6), (1e-6, 3e-6)])
def test_the_histogram_is_that_of_pytorch(values: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.empty(40, 50, 6).uniform_(*values, generator=generator)
    image.view(-1)[:256] = torch.linspace(*values, 257)[1:]  # the ends of the bins
    for layout in (image, image.permute(2, 0, 1)):
        counts, low, high = histogram(layout)
        assert (low, high) == (float(image.min()), float(image.max()))
        assert torch.equal(counts, torch.histc(image, 256, low, high).long())
