"""Define checks that the tests of several phantoms share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from common.phantoms import Phantom, PhantomRecipe
from common.phantoms.bodies import grid


def make(phantom: PhantomRecipe, seed: int | list[int], class_name: str | None = None) -> Phantom:
    return phantom(np.random.default_rng(seed), class_name)


def points_of(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the points ``(3, x, y, z)`` in mm of a grid around 0, and its spacing."""
    steps = np.array(spacing)
    return grid(-steps * (np.array(size) - 1) / 2, steps, size)[0], steps


def best_threshold_dice(images: Sequence[np.ndarray], label: np.ndarray) -> float:
    """Return the best Dice of many intensity ranges between quantiles of the label, the same in each image."""
    scores = []
    for low, high in itertools.product([0, 0.005, 0.02, 0.1, 0.25, 0.4], [0.6, 0.75, 0.9, 0.98, 0.995, 1]):
        limits = [np.quantile(image[label], (low, high)) for image in images]
        chosen = np.all([(image >= a) & (image <= b) for image, (a, b) in zip(images, limits)], axis=0)
        scores.append(2 * (chosen & label).sum() / (chosen.sum() + label.sum()))
    return float(max(scores))


def assert_seed_decides(phantom: PhantomRecipe, class_name: str | None = None) -> None:
    """Check that a seed gives the same case again and another seed another one."""
    first, again, other = (make(phantom, seed, class_name) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.affine, again.affine)
    np.testing.assert_array_equal(first.label, again.label)
    assert list(first.images) == list(phantom.all_modalities)
    for modality, image in first.images.items():
        np.testing.assert_array_equal(image, again.images[modality])
    assert not np.array_equal(first.affine, other.affine)


def assert_is_a_ct(case: Phantom) -> None:
    """Check types, shapes and HU of a CT, and the noise of the air in front of the patient."""
    image = case.images["CT"]
    assert list(case.images) == ["CT"] and image.dtype == np.float32 and case.label.dtype == np.uint8
    assert image.shape == case.label.shape
    np.testing.assert_array_equal(image, np.round(image))
    assert -1024 <= image.min() < -1000 and 350 < image.max() < 700
    corner = image[:4, -4:]  # in front of the patient, where there is no table
    assert abs(corner.mean() + 1000) < 8 and 5 < corner.std() < 20
