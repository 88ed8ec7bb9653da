"""From the signal of tissues to an image with texture and noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MR_NOISE = 26.0  # standard deviation in each of the real and imaginary channel
MR_TEXTURE = 0.04  # standard deviation relative to the signal

CT_BLUR = 1.8  # mm, standard deviation of the point-spread function
CT_NOISE = 12.0  # HU
CT_GRAIN = 0.6  # voxels, over which the noise is smooth
CT_TEXTURE = 0.008  # standard deviation relative to the attenuation: 8 HU in water, nothing in air


def acquire_mr(rng: np.random.Generator, signal: np.ndarray, points: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The magnitude image: tissue texture, receive gain and bias field, Rician noise."""
    texture = ndimage.gaussian_filter(rng.normal(size=signal.shape), 4 / spacing)
    texture *= MR_TEXTURE / texture.std()
    p = points / 90
    bias = np.tensordot(rng.uniform(-0.08, 0.08, 3), p, 1) + np.tensordot(rng.uniform(-0.08, 0.08, 3), p**2, 1)
    signal = rng.uniform(0.85, 1.15) * signal * (1 + texture) * np.exp(bias)
    noise = rng.normal(0, MR_NOISE, (2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1]).round().astype(np.float32)


def acquire_ct(rng: np.random.Generator, hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The reconstructed image in HU: blur in plane, tissue texture, Gaussian noise with a grain; at least -1024."""
    in_plane = CT_BLUR / spacing * (1, 1, 0)
    attenuation = 1 + ndimage.gaussian_filter(hu, in_plane) / 1000  # relative to water
    texture = ndimage.gaussian_filter(rng.normal(size=hu.shape), 4 / spacing)
    noise = ndimage.gaussian_filter(rng.normal(size=hu.shape), (CT_GRAIN, CT_GRAIN, 0))
    attenuation *= 1 + texture * (CT_TEXTURE / texture.std())
    image = 1000 * (attenuation - 1) + noise * (CT_NOISE / noise.std())
    return np.clip(image.round(), -1024, 3071).astype(np.float32)
