from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from common.errors import InputError
from common.methods.mmfnet import HEAD_DISTRACTORS, HEAD_SIGNALS, HeadPhantom

from ...phantoms.checks import assert_seed_decides, best_threshold_dice, make

MODALITIES = HeadPhantom.all_modalities
SMALL = HeadPhantom(size=(42, 48, 16), spacing=(4.0, 4.0, 5.5))  # coarse, to be fast; bodies are drawn in mm


def test_a_seed_determines_the_case() -> None:
    assert_seed_decides(SMALL)


@pytest.mark.parametrize("seed", range(4))
def test_geometry_and_values_are_those_of_mri(seed: int) -> None:
    case = make(HeadPhantom(), seed)
    nx, ny, nz = case.label.shape
    spacing = case.affine.diagonal()[:3]
    assert (nx, ny) == (84, 96) and 18 <= nz <= 22
    assert spacing[0] == spacing[1] and abs(spacing[0] / 2 - 1) <= 0.1 and abs(spacing[2] / 4.5 - 1) <= 0.15
    np.testing.assert_array_equal(case.affine[:3, :3], np.diag(spacing))
    centre = case.affine[:3, :3] @ (np.array(case.label.shape) - 1) / 2 + case.affine[:3, 3]
    assert abs(centre[:2]).max() <= 3 and abs(centre[2]) < 1e-9
    for image in case.images.values():
        assert image.shape == case.label.shape and image.dtype == np.float32
        assert image.min() >= 0 and 800 < image.max() < 2000
        np.testing.assert_array_equal(image, np.round(image))
        corner = image[:5, :5]
        assert 0 < corner.mean() < 60 and (corner > 0).mean() > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_the_label_is_one_tumour_in_the_nasopharynx(seed: int) -> None:
    case = make(HeadPhantom(), seed)
    assert case.label.dtype == np.uint8 and np.unique(case.label).tolist() == [0, 1]
    assert ndimage.label(case.label)[1] == 1
    volume = case.label.sum() * case.affine.diagonal()[:3].prod()
    assert 24 < (6 * volume / np.pi) ** (1 / 3) < 46
    assert case.label.any((0, 1)).sum() >= 4
    centre = case.affine[:3, :3] @ ndimage.center_of_mass(case.label) + case.affine[:3, 3]
    assert (abs(centre) < (25, 20, 15)).all()
    head = ndimage.binary_fill_holes(ndimage.binary_closing(case.images["T1"] > 150, iterations=2))
    assert head[case.label > 0].mean() > 0.99


def test_the_tumour_does_not_depend_on_the_spacing() -> None:
    volumes = []
    for phantom in (HeadPhantom(), SMALL):
        case = make(phantom, 5)
        volumes.append(case.label.sum() * case.affine.diagonal()[:3].prod())
    assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


def test_each_distractor_differs_in_one_modality() -> None:
    signals = HEAD_SIGNALS
    differing = [[i for i in range(3) if signals[name][i] != signals["tumour"][i]] for name in HEAD_DISTRACTORS]
    assert sorted(differing) == [[0], [1], [2]]


@pytest.mark.slow
def test_the_tumour_shows_only_in_all_modalities_together() -> None:
    scores: dict[tuple[str, ...], list[float]] = {}
    for seed in range(6):
        case = make(HeadPhantom(), seed)
        for count in (1, 2, 3):
            for names in itertools.combinations(MODALITIES, count):
                images = [case.images[name] for name in names]
                scores.setdefault(names, []).append(best_threshold_dice(images, case.label > 0))
    means = {names: float(np.mean(values)) for names, values in scores.items()}
    assert max(score for names, score in means.items() if len(names) == 1) < 0.45, means
    assert max(score for names, score in means.items() if len(names) == 2) < 0.85, means
    assert means[MODALITIES] > 0.95, means


def test_other_modalities_and_small_volumes_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least one of T1, T2, CET1"):
        HeadPhantom(modalities=("T1", "FLAIR"))
    with pytest.raises(InputError, match="at least 64 x 64 x 64 mm"):
        HeadPhantom(size=(84, 96, 10))
