from __future__ import annotations

import numpy as np

from common.phantoms.acquisition import acquire_ct, acquire_mr

from .checks import points_of


def test_ct_noise_is_gaussian_around_the_hu() -> None:
    hu = np.full((60, 60, 20), -1000.0)
    hu[30:] = 100.0
    image = acquire_ct(np.random.default_rng(0), hu, np.array([3.0, 3.0, 6.0]))
    water, air = image[34:], image[:26]
    assert abs(water.mean() - 100) < 2 and 12 < water.std() < 18  # noise, and texture in proportion
    assert abs(air.mean() + 1000) < 2 and 9 < air.std() < 12.5  # cut at -1024
    deviations = (water - water.mean()) / water.std()
    assert abs((deviations**3).mean()) < 0.1 and abs((deviations**4).mean() - 3) < 0.25
    across = [
        np.corrcoef(np.moveaxis(water, axis, 0)[1:].ravel(), np.moveaxis(water, axis, 0)[:-1].ravel())[0, 1]
        for axis in (0, 2)
    ]
    assert across[0] > 0.4 > across[1] > 0.05


def test_mr_noise_is_rician_and_the_signal_stays_in_range() -> None:
    points, spacing = points_of((40, 40, 20), (2.0, 2.0, 4.0))
    signal = np.zeros(points.shape[1:])
    signal[20:] = 600
    image = acquire_mr(np.random.default_rng(0), signal, points, spacing)
    np.testing.assert_array_equal(image, np.round(image))
    assert image.dtype == np.float32 and image.min() >= 0
    background = image[:20]
    # a Rayleigh distribution of scale 26
    assert abs(background.mean() - 26 * np.sqrt(np.pi / 2)) < 1 and abs(background.std() - 26 * 0.655) < 1
    assert 600 * 0.8 < image[20:].mean() < 600 * 1.2
