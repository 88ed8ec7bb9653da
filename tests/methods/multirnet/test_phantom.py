from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from common.errors import InputError
from common.methods.multirnet import LungPhantom
from common.methods.multirnet.phantom import LUNG_HU, draw_chest

from ...phantoms.checks import assert_is_a_ct, assert_seed_decides, best_threshold_dice, make, points_of

LUNG = LungPhantom()
SMALL_LUNG = LungPhantom(size=(40, 34, 24), spacing=(7.0, 7.0, 8.0))


@pytest.mark.parametrize("class_name", LungPhantom.classes)
def test_each_class_is_a_ct(class_name: str) -> None:
    assert_seed_decides(SMALL_LUNG, class_name)
    assert_is_a_ct(make(SMALL_LUNG, 1, class_name))
    assert_is_a_ct(make(LUNG, 1, class_name))


@pytest.mark.parametrize("phantom", [LUNG, SMALL_LUNG])
def test_ground_glass_lies_at_the_surface_of_both_lungs(phantom: LungPhantom) -> None:
    behind = []
    for seed in range(4):
        case = make(phantom, seed, "COVID-19")
        image, lesion = case.images["CT"], case.label == 1
        x, y = (np.argwhere(lesion)[:, :2] * case.affine.diagonal()[:2] + case.affine[:2, 3]).T
        assert 0.15 < (x > 0).mean() < 0.85
        behind.append((y < 0).mean())
        assert ndimage.label(lesion)[1] >= 2
        core = ndimage.binary_erosion(lesion)
        assert -680 < np.median(image[core if core.any() else lesion]) < -420
    assert np.mean(behind) > 0.6


@pytest.mark.parametrize("phantom", [LUNG, SMALL_LUNG])
def test_consolidations_lie_in_the_middle_of_one_lung(phantom: LungPhantom) -> None:
    sides = set()
    for seed in range(6):
        case = make(phantom, seed, "CAP")
        image, lesion = case.images["CT"], case.label == 1
        x = np.argwhere(lesion)[:, 0] * case.affine[0, 0] + case.affine[0, 3]
        assert (np.sign(x) == np.sign(x[0])).mean() > 0.98  # but for the shift of the grid
        sides.add(np.sign(x.mean()))
        assert 20e3 < lesion.sum() * case.affine.diagonal()[:3].prod() < 350e3
        core = lesion & (ndimage.distance_transform_edt(lesion, sampling=case.affine.diagonal()[:3]) > 12)
        assert core.any() and -40 < np.median(image[core]) < 60
    assert sides == {1, -1}


def test_a_normal_chest_has_no_lesion_but_similar_tissue() -> None:
    case = make(LUNG, 3, "normal")
    assert not case.label.any()
    image = case.images["CT"]
    assert ((image > -650) & (image < -450)).sum() > 2000  # the table, for one
    points, spacing = points_of((72, 60, 40), (4.0, 4.0, 5.0))
    names = tuple(LUNG_HU)
    tissue = draw_chest(np.random.default_rng(0), points, spacing)
    assert {"dependent lung", "lung vessel", "airway", "heart", "aorta", "bone"} <= {
        names[i] for i in np.unique(tissue)
    }
    lung = np.isin(tissue, [names.index(name) for name in ("lung", "dependent lung", "lung vessel")])
    left, right = lung[points[0] < 0].sum(), lung[points[0] > 0].sum()
    assert 0.6 < left / right < 1.4 and 1.2 < lung.sum() * spacing.prod() / 1e6 < 3
    assert (points[1][tissue == names.index("dependent lung")] < 0).all()


def test_no_intensity_range_separates_the_lesions() -> None:
    for name, limit in (("COVID-19", 0.62), ("CAP", 0.35)):
        cases = [make(LUNG, seed, name) for seed in range(3)]
        scores = [best_threshold_dice([case.images["CT"]], case.label == 1) for case in cases]
        assert np.mean(scores) < limit, (name, scores)


def test_other_classes_and_small_volumes_are_refused() -> None:
    with pytest.raises(InputError, match="class healthy: expected one of COVID-19, CAP, normal"):
        make(LUNG, 0, "healthy")
    with pytest.raises(InputError, match="at least 240 x 200 x 140 mm"):
        replace(LUNG, size=(50, 60, 40))
