"""Simulate acquisition: turn the signal of tissues into an image with texture and noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MR_NOISE = 26.0  # standard deviation in the real and in the imaginary channel
MR_TEXTURE = 0.04  # standard deviation, relative to the signal

CT_BLUR = 1.8  # mm, standard deviation of the point-spread function
CT_NOISE = 12.0  # HU
CT_GRAIN = 0.6  # voxels, standard deviation of the smoothing of the noise
CT_TEXTURE = 0.008  # standard deviation, relative to the attenuation: 8 HU in water, 0 in air


def acquire_mr(
    rng: np.random.Generator,
    signal: np.ndarray,
    points: np.ndarray,
    spacing: np.ndarray,
    noise: float = 1.0,
    bias_field: float = 1.0,
) -> np.ndarray:
    """Return the magnitude image, with tissue texture, receive gain, bias field and Rician noise.

    Args:
        rng: source of randomness.
        signal: noise-free signal of each point, ``(x, y, z)``.
        points: ``(3, x, y, z)`` in mm.
        spacing: mm along x, y, z.
        noise: factor of the standard deviation of the noise.
        bias_field: factor of the bias field.
    """
    texture = ndimage.gaussian_filter(rng.normal(size=signal.shape), 4 / spacing)
    texture *= MR_TEXTURE / texture.std()
    p = points / 90
    bias = np.tensordot(rng.uniform(-0.08, 0.08, 3), p, 1) + np.tensordot(rng.uniform(-0.08, 0.08, 3), p**2, 1)
    signal = rng.uniform(0.85, 1.15) * signal * (1 + texture) * np.exp(bias_field * bias)
    real, imaginary = rng.normal(0, noise * MR_NOISE, (2, *signal.shape))
    return np.hypot(signal + real, imaginary).round().astype(np.float32)


def acquire_ct(rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray, noise: float = 1.0) -> np.ndarray:
    """Return the reconstructed image in HU, with blur in plane, tissue texture and correlated Gaussian noise.

    Args:
        rng: source of randomness.
        hu: noise-free HU of each point, ``(x, y, z)``.
        spacing: mm along x, y, z.
        noise: factor of the standard deviation of the noise.

    Returns:
        float32 ``(x, y, z)``, whole numbers from -1024 to 3071.
    """
    in_plane = CT_BLUR / spacing * (1, 1, 0)
    attenuation = 1 + ndimage.gaussian_filter(hu, in_plane) / 1000  # relative to water
    texture = ndimage.gaussian_filter(rng.normal(size=hu.shape), 4 / spacing)
    grain = ndimage.gaussian_filter(rng.normal(size=hu.shape), (CT_GRAIN, CT_GRAIN, 0))
    attenuation *= 1 + texture * (CT_TEXTURE / texture.std())
    image = 1000 * (attenuation - 1) + grain * (noise * CT_NOISE / grain.std())
    return np.clip(image.round(), -1024, 3071).astype(np.float32)
