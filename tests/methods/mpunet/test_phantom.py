from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from common.errors import InputError
from common.methods.mpunet import LiverPhantom
from common.methods.mpunet.phantom import LIVER_HU, draw_upper_abdomen

from ...phantoms.checks import assert_is_a_ct, assert_seed_decides, best_threshold_dice, make, points_of

LIVER = LiverPhantom()
SMALL_LIVER = LiverPhantom(size=(40, 34, 24), spacing=(7.0, 7.0, 7.5))


def test_a_case_is_a_ct() -> None:
    assert_seed_decides(SMALL_LIVER)
    assert_is_a_ct(make(SMALL_LIVER, 1))
    assert_is_a_ct(make(LIVER, 1))


@pytest.mark.parametrize("phantom", [LIVER, SMALL_LIVER])
def test_liver_and_tumours_have_their_size_place_and_hu(phantom: LiverPhantom) -> None:
    for seed in range(2):
        case = make(phantom, seed)
        image, liver, tumour = case.images["CT"], case.label > 0, case.label == 2
        litres = liver.sum() * case.affine.diagonal()[:3].prod() / 1e6
        assert 0.5 < litres < 1.5
        assert np.unique(case.label).tolist() == [0, 1, 2]
        # the largest part is nearly all of it, and it lies on the right
        parts, _ = ndimage.label(liver)
        assert np.bincount(parts[liver]).max() > 0.97 * liver.sum()
        assert (case.affine[0] @ [*ndimage.center_of_mass(liver), 1]) > 15
        # tumours lie inside and are darker; the rest is liver with a few vessels
        assert liver[ndimage.binary_dilation(tumour)].all() and tumour.sum() < 0.25 * liver.sum()
        inside = ndimage.binary_erosion(liver) & ~ndimage.binary_dilation(tumour)
        assert abs(np.median(image[inside]) - LIVER_HU["liver"]) < 8
        core = ndimage.binary_erosion(tumour)
        assert 20 < np.median(image[inside]) - image[core if core.any() else tumour].mean() < 50


def test_the_number_of_slices_varies() -> None:
    phantom = replace(LIVER, size=(36, 30, 37), spacing=(8.0, 8.0, 5.0))
    slices = {make(phantom, seed).label.shape[2] for seed in range(8)}
    assert len(slices) > 3 and min(slices) >= 30 and max(slices) <= 44


def test_no_intensity_range_separates_liver_or_tumours() -> None:
    livers, tumours = [], []
    for seed in range(3):
        case = make(LIVER, seed)
        livers.append(best_threshold_dice([case.images["CT"]], case.label > 0))
        tumours.append(best_threshold_dice([case.images["CT"]], case.label == 2))
    assert np.mean(livers) < 0.65 and np.mean(tumours) < 0.2, (livers, tumours)


def test_other_organs_and_cysts_have_similar_hu() -> None:
    points, spacing = points_of((72, 60, 37), (4.0, 4.0, 5.0))
    names = tuple(LIVER_HU)
    like = ("spleen", "kidney", "heart", "food", "bowel")
    assert all(abs(LIVER_HU[name] - LIVER_HU["liver"]) <= 20 for name in like)
    assert LIVER_HU["cyst"] == LIVER_HU["tumour"] and 30 <= LIVER_HU["liver"] - LIVER_HU["tumour"] <= 40
    for seed in range(2):
        tissue = draw_upper_abdomen(np.random.default_rng(seed), points, spacing)
        assert all((tissue == names.index(name)).sum() > 100 for name in like)
        assert {"cyst", "lung", "bone", "table", "hepatic vessel"} <= {names[i] for i in np.unique(tissue)}


def test_small_volumes_are_refused() -> None:
    with pytest.raises(InputError, match="at least 240 x 200 x 140 mm"):
        replace(LIVER, size=(50, 60, 40))
