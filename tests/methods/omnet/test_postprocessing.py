from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.methods.omnet import CleanTumourd
from common.methods.omnet.postprocessing import two_clusters

SHAPE = (60, 50, 40)


def volume() -> np.ndarray:
    return np.zeros(SHAPE, np.uint8)


def modalities(bright: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return four modalities of noise around 0, T1c third; T1c is 3 where ``bright``."""
    image = np.random.default_rng(seed).normal(0, 0.1, (4, *SHAPE)).astype(np.float32)
    if bright is not None:
        image[2, bright] += 3
    return image


def clean(label: np.ndarray, image: np.ndarray | None = None, **options: int) -> np.ndarray:
    data = {"image": torch.from_numpy(modalities() if image is None else image), "pred": torch.from_numpy(label)[None]}
    found = CleanTumourd("pred", **options)(data)["pred"]
    assert torch.equal(data["pred"][0], torch.from_numpy(label))  # the input is not changed
    assert found.shape == data["pred"].shape and found.dtype == data["pred"].dtype
    return found[0].numpy()


# Step 1.


def parts(*sizes: int) -> np.ndarray:
    """Return class 3, which step 2 does not change, in separate components of these sizes."""
    label = volume()
    for i, size in enumerate(sizes):
        label[4 * i].reshape(-1)[:size] = 3
    return label


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ((1000, 100, 99), (1000, 100)),  # a tenth of the largest stays
        ((1005, 101, 100), (1005, 101)),
        ((99, 1000, 100), (1000, 100)),
        ((5, 1), (5, 1)),
        ((3,), (3,)),
        ((), ()),
    ],
)
def test_components_below_a_tenth_of_the_largest_are_removed(sizes: tuple[int, ...], kept: tuple[int, ...]) -> None:
    found = clean(parts(*sizes))
    left = [int((found[4 * i : 4 * i + 3] > 0).sum()) for i in range(len(sizes))]
    assert tuple(n for n in left if n) == kept
    np.testing.assert_array_equal(clean(found), found)


def test_a_component_of_2000_voxels_stays() -> None:
    label = np.full((40, *SHAPE[1:]), 3, np.uint8)
    label[:, :, 20] = 0
    label[:2, :, 20:] = label[20:, :, 20:] = 0  # two large parts, the second smaller
    for size, stays in ((1999, False), (2000, True)):
        padded = np.zeros((60, *SHAPE[1:]), np.uint8)
        padded[:40] = label
        padded[50:52].reshape(-1)[:size] = 3
        assert (padded[:40] > 0).sum() > 10 * 2000
        found = clean(padded)
        assert bool(found[50:].any()) == stays
        np.testing.assert_array_equal(found[:40], padded[:40])


def test_components_connect_by_corners_and_across_classes() -> None:
    label = volume()
    label[:20, :10, :10] = 3
    label[20, 10, 10] = 2  # a corner of the block
    label[20, 10, 12] = 1  # apart
    expected = label.copy()
    expected[20, 10, 12] = 0
    np.testing.assert_array_equal(clean(label), expected)


# Step 2.


def tumour(oedema: int = 1000, enhancing: int = 0, core: int = 0, at: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return one component of these voxels, from x = ``at`` on, and the mask of the second half of its oedema."""
    line = np.concatenate([np.full(enhancing, 3), np.full(core, 1), np.full(oedema, 2)]).astype(np.uint8)
    label = volume()
    label[at:].reshape(-1)[: len(line)] = line
    second = np.zeros(SHAPE, bool)
    second[at:].reshape(-1)[enhancing + core + oedema // 2 : len(line)] = True
    return label, second


def test_the_darker_half_of_the_oedema_becomes_core() -> None:
    label, bright = tumour(oedema=900, enhancing=30, core=70)
    found = clean(label, modalities(bright))
    expected = label.copy()
    expected[(label == 2) & ~bright] = 1
    np.testing.assert_array_equal(found, expected)
    assert (found == 1).sum() == 70 + 450
    # complete and enhancing tumour are those before, the core is larger
    np.testing.assert_array_equal(found > 0, label > 0)
    np.testing.assert_array_equal(found == 3, label == 3)
    assert np.isin(found, (1, 3))[np.isin(label, (1, 3))].all()


def test_the_cluster_darker_after_contrast_becomes_core() -> None:
    label, second = tumour()
    image = modalities()
    image[:2, second] += 5  # what tells the clusters
    image[2, second] -= 0.5
    found = clean(label, image)
    np.testing.assert_array_equal(found == 1, second)
    found = clean(label, image, contrast=0)
    np.testing.assert_array_equal(found == 1, (label == 2) & ~second)


@pytest.mark.parametrize(
    ("enhancing", "oedema", "changes"),
    [(49, 951, True), (50, 950, False), (0, 1000, True), (99, 901, False), (100, 900, False)],
)
def test_a_component_changes_if_little_of_it_enhances(enhancing: int, oedema: int, changes: bool) -> None:
    label, bright = tumour(oedema, enhancing)
    assert (clean(label, modalities(bright)) != label).any() == changes


@pytest.mark.parametrize(("enhancing", "changes"), [(199, True), (200, False)])
def test_nothing_changes_if_a_tenth_of_the_tumour_enhances(enhancing: int, changes: bool) -> None:
    label, bright = tumour(oedema=1000)
    second, _ = tumour(oedema=1000 - enhancing, enhancing=enhancing, at=30)
    both = np.maximum(label, second)
    assert (both > 0).sum() == 2000
    found = clean(both, modalities(bright))
    assert (found != both).any() == changes
    np.testing.assert_array_equal(found[30:], both[30:])  # more than a twentieth of it enhances


@pytest.mark.parametrize(("enhancing", "changes"), [(999, True), (1000, False)])
def test_a_component_with_1000_enhancing_voxels_stays(enhancing: int, changes: bool) -> None:
    label, bright = tumour(oedema=25000 - enhancing, enhancing=enhancing)
    assert (clean(label, modalities(bright)) != label).any() == changes


def test_step_2_counts_only_what_step_1_leaves() -> None:
    for size, changes in ((99, True), (100, False)):  # 198 of 1198 voxels would be more than a tenth
        label, bright = tumour(oedema=1000)
        label[40].reshape(-1)[:size] = label[50].reshape(-1)[:size] = 3
        found = clean(label, modalities(bright))
        assert (found == 1).any() == changes
        assert (found == 3).any() != changes


def test_each_component_has_its_own_clusters() -> None:
    first, bright = tumour(oedema=1000)
    second, dim = tumour(oedema=1000, at=30)
    image = modalities(bright)
    image[2, second > 0] += 10
    image[2, dim] += 3
    found = clean(np.maximum(first, second), image)
    expected = ((first == 2) & ~bright) | ((second == 2) & ~dim)
    np.testing.assert_array_equal(found == 1, expected)


@pytest.mark.parametrize("voxels", [0, 1])
def test_fewer_than_two_voxels_of_oedema_do_not_change(voxels: int) -> None:
    label, _ = tumour(oedema=voxels, core=50)
    np.testing.assert_array_equal(clean(label), label)


def test_two_voxels_form_two_clusters() -> None:
    label, bright = tumour(oedema=2, core=50)
    assert (clean(label, modalities(bright)) == 1).sum() == 51


def test_equally_bright_clusters_do_not_change() -> None:
    label, second = tumour()
    image = modalities()
    image[0, second] += 5
    image[2] = 0.3
    np.testing.assert_array_equal(clean(label, image), label)
    image[:] = 0.3  # and one cluster
    np.testing.assert_array_equal(clean(label, image), label)


def test_an_empty_map_stays_empty() -> None:
    assert not clean(volume()).any()


def test_the_result_does_not_depend_on_global_seeds() -> None:
    label, _ = tumour(oedema=3000)
    image = modalities() * 10  # no clear clusters
    first = clean(label, image)
    np.random.default_rng().normal()
    torch.rand(3)
    np.random.seed(7)
    np.testing.assert_array_equal(clean(label, image), first)
    assert 0 < (first == 1).sum() < 3000


def test_the_best_of_several_starts_is_taken() -> None:
    """Use four groups at the corners of a long rectangle, where a bad start finds the split along its length."""
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0], [0, 1], [1.6, 0], [1.6, 1]])
    values = np.concatenate([corner + rng.normal(0, 0.01, (20, 2)) for corner in corners])
    for seed in range(20):
        group = two_clusters(values, np.random.default_rng(seed))
        assert (group[:40] == group[0]).all() and (group[40:] == 1 - group[0]).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_metatensor_keeps_its_metadata_and_type(dtype: torch.dtype) -> None:
    label, bright = tumour()
    affine = np.diag([-1.0, 1, 2, 1])
    pred = MetaTensor(torch.from_numpy(label)[None].to(dtype), affine=affine, meta={"filename_or_obj": "P1"})
    image = MetaTensor(modalities(bright), affine=affine)
    found = CleanTumourd("pred")({"image": image, "pred": pred})["pred"]
    assert isinstance(found, MetaTensor) and found.dtype == dtype and found.meta["filename_or_obj"] == "P1"
    np.testing.assert_array_equal(found.affine, affine)
    np.testing.assert_array_equal(found[0].numpy(), clean(label, modalities(bright)))


def test_a_map_on_another_grid_is_refused() -> None:
    data = {"image": torch.zeros(4, 3, 4, 5), "pred": torch.zeros(1, 3, 4, 6)}
    with pytest.raises(ValueError, match=r"'pred' has the shape \[1, 3, 4, 6\], but the image has \[4, 3, 4, 5\]"):
        CleanTumourd("pred")(data)
