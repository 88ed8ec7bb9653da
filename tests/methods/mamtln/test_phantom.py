from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from common.errors import InputError
from common.methods.mamtln import StomachPhantom
from common.methods.mamtln.phantom import BESIDE, COELIAC_TRUNK, STOMACH_HU, draw_abdomen

from ...phantoms.checks import assert_is_a_ct, assert_seed_decides, best_threshold_dice, make, points_of

STOMACH = StomachPhantom()
SMALL_STOMACH = StomachPhantom(size=(48, 40, 14), spacing=(6.0, 6.0, 8.0))


@pytest.mark.parametrize("class_name", StomachPhantom.classes)
def test_each_class_is_a_ct(class_name: str) -> None:
    assert_seed_decides(SMALL_STOMACH, class_name)
    assert_is_a_ct(make(SMALL_STOMACH, 1, class_name))
    assert_is_a_ct(make(STOMACH, 1, class_name))


def test_number_and_distance_of_slices_vary() -> None:
    phantom = replace(STOMACH, size=(48, 40, 17), spacing=(6.0, 6.0, 6.5))
    cases = [make(phantom, seed, "negative") for seed in range(12)]
    assert {case.label.shape[:2] for case in cases} == {(48, 40)}
    assert {case.label.shape[2] for case in cases} == {16, 17, 18}
    distances = [case.affine[2, 2] for case in cases]
    assert 5 <= min(distances) < 6 and 7 < max(distances) <= 8
    assert all(case.affine[0, 0] == case.affine[1, 1] == 6 for case in cases)


@pytest.mark.parametrize("phantom", [STOMACH, SMALL_STOMACH])
def test_the_tumour_lies_in_the_wall_of_the_stomach(phantom: StomachPhantom) -> None:
    for seed in range(4):
        case = make(phantom, seed, "positive")
        label, image = case.label == 1, case.images["CT"]
        assert ndimage.label(label)[1] == 1
        assert 15e3 < label.sum() * case.affine.diagonal()[:3].prod() < 90e3  # mm3
        assert case.label.any((0, 1)).sum() >= 3
        assert abs(np.median(image[label]) - STOMACH_HU["tumour"]) < 15
        # it is brighter than what lies around it, and lies in the wall: fat on one side, lumen on another
        ring = ndimage.binary_dilation(label, iterations=2) & ~label
        assert image[ring].mean() < image[label].mean() - 40
        assert (image[label] > 160).any()  # its vessels
        assert (image[ring] < -60).any() and ((image[ring] < -500) | (abs(image[ring] - 12) < 30)).any()


def test_no_intensity_range_separates_the_tumour() -> None:
    cases = [make(STOMACH, seed, "positive") for seed in range(2)]
    assert max(best_threshold_dice([case.images["CT"]], case.label == 1) for case in cases) < 0.3


def test_masses_like_the_tumour_do_not_touch_the_stomach() -> None:
    points, spacing = points_of((60, 50, 17), (5.0, 5.0, 6.5))
    names = tuple(STOMACH_HU)
    assert STOMACH_HU["mass"] == STOMACH_HU["tumour"]
    for seed in range(12):
        tissue = draw_abdomen(np.random.default_rng(seed), points, spacing)
        stomach = np.isin(tissue, [names.index(f"stomach {part}") for part in ("wall", "fluid")])
        mass, tumour = (tissue == names.index(name) for name in ("mass", "tumour"))
        away = ndimage.distance_transform_edt(~stomach, sampling=spacing)
        assert mass.sum() * spacing.prod() > 5e3 and away[mass & (points[2] < 40)].min() > 4
        assert away[tumour].min() <= 6.5


def test_positive_cases_have_bright_nodes_beside_the_tumour() -> None:
    points, spacing = points_of((48, 40, 17), (6.0, 6.0, 6.5))
    names = tuple(STOMACH_HU)
    to_trunk = np.linalg.norm(points - np.array(COELIAC_TRUNK)[:, None, None, None], axis=0)
    nearer = []
    for seed in range(8):
        nodes = {True: (10, 14), False: None}
        tissue = {p: draw_abdomen(np.random.default_rng(seed), points, spacing, nodes[p]) for p in nodes}
        of_tumour = [names.index(name) for name in ("tumour", "tumour vessel")]
        tumour = np.isin(tissue[True], of_tumour)
        np.testing.assert_array_equal(tumour, np.isin(tissue[False], of_tumour))
        distance = ndimage.distance_transform_edt(~tumour, sampling=spacing)
        bright = {p: tissue[p] == names.index("bright node") for p in tissue}
        assert bright[True].sum() * spacing.prod() > 8 * 1000 and distance[bright[True]].max() < 55
        # on the side where the nodes drain to
        fat = (tissue[False] == names.index("fat")) & (distance < 40)
        nearer.append(to_trunk[fat].mean() - to_trunk[bright[True]].mean())
        assert not bright[False].any()
        for case in tissue.values():
            small, count = ndimage.label(case == names.index("small node"))
            sizes = np.bincount(small.ravel())[1:] * spacing.prod()
            assert count >= 2 and sizes.max() < 900
    assert np.mean(nearer) > 6, nearer


def test_decoys_are_like_the_nodes_but_far_from_the_tumour() -> None:
    points, spacing = points_of((48, 40, 17), (6.0, 6.0, 6.5))
    names = tuple(STOMACH_HU)
    counts = {}
    for nodes in (None, (2, 3)):
        tissue = draw_abdomen(np.random.default_rng(1), points, spacing, nodes, decoys=3)
        tumour = np.isin(tissue, [names.index(name) for name in ("tumour", "tumour vessel")])
        distance = ndimage.distance_transform_edt(~tumour, sampling=spacing)
        bright, number = ndimage.label(tissue == names.index("bright node"))
        nearest = ndimage.minimum(distance, bright, range(1, number + 1))
        counts[nodes] = (int((np.array(nearest) < BESIDE).sum()), int((np.array(nearest) >= BESIDE).sum()))
    assert counts == {None: (0, 3), (2, 3): (2, 3)}
    with pytest.raises(InputError, match=r"nodes \[0, 2\]"):
        replace(STOMACH, nodes=(0, 2))


def test_other_classes_and_small_volumes_are_refused() -> None:
    with pytest.raises(InputError, match="class None: expected one of negative, positive"):
        make(STOMACH, 0)
    with pytest.raises(InputError, match=r"size \(96, 80, 10\) .* at least 220 x 180 x 80 mm"):
        StomachPhantom(size=(96, 80, 10))
