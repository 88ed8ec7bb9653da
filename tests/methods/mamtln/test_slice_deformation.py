from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, MapTransform
from scipy import ndimage

from common.data import CaseSampler, SampledCacheDataset
from common.methods.mamtln import RandDeformSlicesd
from common.methods.mamtln.slice_deformation import interpolate_slices

BOTH, ROI = ["image", "label"], (20, 16, 4)


def volume() -> dict:
    """Return equal slices, each times its number, in two channels; the label is the bright part of the image."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 26), torch.linspace(-1, 1, 23), indexing="ij")
    image = torch.exp(-8 * ((x - 0.3) ** 2 + (y + 0.2) ** 2))[None, :, :, None] * torch.tensor([1.0, 2, 3, 4])
    label = (image > 0.5 * image.amax((1, 2), keepdim=True)).byte()
    return {"image": torch.cat([image, -image]), "label": label, "class": 1}


def deform(prob: float = 1, seed: int = 0) -> RandDeformSlicesd:
    transform = RandDeformSlicesd(BOTH, ROI, [False, True], prob, alpha=(5, 20), sigma=(2, 3))
    return transform.set_random_state(seed)


@pytest.mark.parametrize("seed", range(3))
def test_all_slices_and_channels_share_a_deformation(seed: int) -> None:
    before, after = volume(), deform(seed=seed)(volume())
    image, label = after["image"], after["label"]
    assert image.shape == (2, *ROI) and label.shape == (1, *ROI) and label.dtype == torch.uint8
    assert (image[0, :, :, 0] - before["image"][0, 3:23, 3:19, 0]).abs().max() > 0.2
    for z in range(4):
        torch.testing.assert_close(image[0, :, :, z], (z + 1) * image[0, :, :, 0], atol=1e-5, rtol=1e-4)
        assert torch.equal(label[0, :, :, z], label[0, :, :, 0])
    torch.testing.assert_close(image[1], -image[0])
    assert ((image[0, :, :, 0] > 0.5) != (label[0, :, :, 0] > 0)).float().mean() < 0.05 and label.any()


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(2, 17, 12, 3), (1, 2, 5, 1), (1, 1, 3, 2)])
def test_interpolation_equals_scipys(order: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(size=shape)
    places = rng.uniform(-2, np.array(shape[1:3])[:, None, None] + 1, size=(2, 9, 8))
    places[:, 0, 0], places[:, 0, 1] = 0, np.array(shape[1:3]) - 1
    places = places.astype(np.float32)
    found = interpolate_slices(torch.from_numpy(array), torch.from_numpy(places), order)
    for c in range(shape[0]):
        for z in range(shape[3]):
            expected = ndimage.map_coordinates(array[c, :, :, z], places, order=order, mode="constant")
            np.testing.assert_allclose(found[c, :, :, z], expected, atol=1e-4)


def test_without_a_step_the_middle_is_cut_out() -> None:
    before, after = volume(), deform(prob=0)(volume())
    for key in BOTH:
        assert torch.equal(after[key], before[key][:, 3:23, 3:19])
    after["image"].zero_()
    assert torch.equal(before["image"], volume()["image"])
    with pytest.raises(ValueError, match=r"image: \[19, 23, 4\] voxels, expected at least roi_size \[20, 16, 4\]"):
        deform()({key: before[key][:, :19] for key in BOTH})


def test_each_value_of_a_label_is_interpolated_alone() -> None:
    """Expect the values 0, 1 and 3 at the halves of a step, without the 2 between 1 and 3."""
    label = torch.tensor([0, 1, 3, 3, 0, 0, 0], dtype=torch.uint8).reshape(1, 7, 1, 1).expand(1, 7, 7, 1)
    transform = RandDeformSlicesd("label", (6, 6, 1), True, prob=1)
    transform.randomize = lambda size: np.mgrid[0:6, 0:6] - 2.5
    assert transform({"label": label})["label"][0, :, 0, 0].tolist() == [1, 3, 3, 3, 0, 0]


def left_after_the_best_linear_map(places: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacement in a disc, and the linear map."""
    n = places.shape[1]
    x, y = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 2, indexing="ij")
    disc = x**2 + y**2 < radius**2
    basis = np.stack([x[disc], y[disc], np.ones(disc.sum())], axis=1)
    found = places[:, disc].T
    linear, *_ = np.linalg.lstsq(basis, found, rcond=None)
    return found - basis @ linear, linear[:2].T


@pytest.mark.slow
def test_the_published_draws_have_the_statistics_of_the_release() -> None:
    """Compare with 113 deformed patches of the release, in a disc of 100 voxels after the best linear map.

    The means over its patches are: standard deviation 1.52 voxels, largest displacement 5.1 voxels. None folds over.
    """
    transform = RandDeformSlicesd(BOTH, (256, 256, 1), [False, True]).set_random_state(0)
    drawn = [transform.randomize((256, 256)) for _ in range(520)]
    changed = [places for places in drawn if places is not None]
    assert len(changed) / len(drawn) == pytest.approx(1 - 0.8**3, abs=0.06)
    spread, largest, factors = [], [], []
    for places in changed:
        rest, linear = left_after_the_best_linear_map(places, 100)
        singular = np.linalg.svd(linear, compute_uv=False)
        (a, b), (c, d) = np.gradient(places[0]), np.gradient(places[1])
        assert (a * d - b * c).min() > 0  # no patch folds over
        if np.abs(rest).max() > 1e-6:
            spread.append(rest.std())
            largest.append(np.linalg.norm(rest, axis=1).max())
        else:
            assert singular[0] == pytest.approx(singular[1])  # one factor for both axes
            if abs(singular[0] - 1) > 1e-6:
                factors.append(singular[0])
    assert len(spread) / len(drawn) == pytest.approx(0.2, abs=0.04)
    assert np.mean(spread) == pytest.approx(1.52, abs=0.25)
    assert np.mean(largest) == pytest.approx(5.1, abs=0.7)
    assert min(factors) > 0.85 and max(factors) < 1.25
    assert 0.3 < np.mean(np.array(factors) < 1) < 0.7


class Load(MapTransform):
    def __call__(self, data: dict) -> dict:
        return volume()


def test_samples_follow_their_seed_and_collate() -> None:
    cached = SampledCacheDataset([{}], Compose([Load(BOTH), deform()]))
    first = cached[0, 5]["image"]
    assert torch.equal(first, cached[0, 5]["image"]) and not torch.equal(first, cached[0, 6]["image"])
    kept = first.clone()
    first.zero_()
    assert torch.equal(cached[0, 5]["image"], kept)
    batch = next(iter(DataLoader(cached, sampler=CaseSampler(1, 4), batch_size=2)))
    assert batch["image"].shape == (2, 2, *ROI) and batch["class"].tolist() == [1, 1]
