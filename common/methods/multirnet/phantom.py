"""Draw synthetic CT of a chest with lesions of the lungs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ...phantoms.acquisition import acquire_ct
from ...phantoms.bodies import distance_to_balls, draw_ellipsoids, grid, irregular, vary_size
from ...phantoms.recipe import Phantom, PhantomRecipe
from ...phantoms.torso import TORSO_HU, attenuation, draw_torso

LUNG_HU = {
    **TORSO_HU,
    "mediastinum": 20,
    "heart": 45,
    "liver": 60,
    "stomach": 40,
    "gas": -980,
    "aorta": 45,
    "lung vessel": 42,
    "airway": -960,
    "lung": -850,
    "dependent lung": -690,
}
PARENCHYMA = ("lung", "dependent lung")
GROUND_GLASS_HU = (-650, -450)
CONSOLIDATION_HU = (0, 40)
CONSOLIDATION_RIM_HU = -350

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the body.
CHEST = (
    ("lung", (0, 2, 8), (106, 71, 92)),
    ("mediastinum", (0, 4, 0), (24, 80, 600)),
    ("mediastinum", (0, -50, 0), (32, 24, 600)),
    ("heart", (-20, 26, -34), (46, 38, 42)),
    ("heart", (-2, 8, 30), (15, 30, 13)),  # aortic arch
    ("aorta", (-18, -34, -20), (11, 11, 56)),  # descending aorta
    ("liver", (58, 0, -98), (54, 66, 46)),
    ("stomach", (-60, 0, -106), (52, 64, 46)),
    ("gas", (-54, 26, -96), (22, 18, 16)),
    ("airway", (0, -8, 64), (8, 8, 52)),  # trachea
)
CARINA = (0.0, -8.0, 14.0)
HILUM = (34.0, -6.0, 2.0)  # right; the left one mirrors it
# From the right hilum to the middle of each segment, mm; each vessel branches half-way.
BRANCHES = ((42, 34, 34), (44, -30, 40), (52, 20, -10), (48, -34, -16), (34, 10, -54), (40, -34, -50))


@dataclass(kw_only=True)
class LungPhantom(PhantomRecipe):
    """Draw a CT of a chest; label 1 is any lesion of the lungs.

    ``COVID-19``: several areas of ground glass (-650 to -450 HU) in both lungs, at their surface, mostly at the back.
    ``CAP``: one or two consolidations (0 to 40 HU in a fainter rim) in the middle of one lung, with open airways.
    ``normal``: no lesion.

    In each case, the lung at the back is denser. The table has the HU of ground glass. Heart, muscle and vessels have
    the HU of a consolidation. Vessels in a lesion belong to it, airways do not. Anatomy, positions, HU, slice distance
    and noise differ from case to case.

    Args:
        size: voxels along x, y, z.
        spacing: mm along x, y, z; the slice distance varies by up to 10 %.
        noise: factor of the noise.

    Raises:
        InputError: the field of view is smaller than 240 x 200 x 140 mm.
    """

    modalities: Sequence[str] = field(default=("CT",), init=False)
    size: Sequence[int] = (72, 60, 40)
    spacing: Sequence[float] = (4.0, 4.0, 5.0)

    all_modalities = ("CT",)
    labels: ClassVar[Mapping[int, str]] = {1: "lesion"}
    classes = ("COVID-19", "CAP", "normal")
    default_cases = 36
    smallest_field_of_view = (240.0, 200.0, 140.0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        spacing = np.array(self.spacing) * (1, 1, rng.uniform(0.9, 1.1))
        first = rng.uniform(-4, 4, 3) - spacing * (np.array(self.size) - 1) / 2
        points, affine = grid(first, spacing, self.size)
        points = vary_size(rng, points)
        tissue = draw_chest(rng, points, spacing)
        hu = attenuation(rng, tissue, LUNG_HU)
        lesion = np.zeros(tissue.shape, bool)
        if class_name == "COVID-19":
            lesion = _add_ground_glass(rng, hu, tissue, points, spacing)
        elif class_name == "CAP":
            lesion = _add_consolidations(rng, hu, tissue, points, spacing)
        return Phantom({"CT": acquire_ct(rng, hu, spacing, self.noise)}, lesion.astype(np.uint8), affine)


def draw_chest(rng: np.random.Generator, points: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the index into :data:`LUNG_HU` of each point of a chest without lesions.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        spacing: mm along x, y, z.
    """
    tissues = tuple(LUNG_HU)
    tissue, cavity = draw_torso(rng, points, tissues, content="fat")
    organs = tissue.copy()
    draw_ellipsoids(rng, organs, points, CHEST, tissues, shift=2)
    tissue[cavity] = organs[cavity]

    lung = tissue == tissues.index("lung")
    depth = ndimage.distance_transform_edt(lung, sampling=spacing)
    tissue[lung & (depth < rng.uniform(6, 11)) & (points[1] < -24)] = tissues.index("dependent lung")
    vessels, airways = [], [_path(rng, (0, -8, 60), CARINA)]
    for side in (1, -1):
        hilum = np.array(HILUM) * (side, 1, 1)
        airways.append(_path(rng, CARINA, hilum))
        for middle in np.array(BRANCHES) * (side, 1, 1) + hilum:
            middle = middle + rng.uniform(-6, 6, 3)
            vessels.append(_path(rng, hilum, middle))
            airways.append(vessels[-1] + (0, 5, 0))
            vessels += [_path(rng, middle, middle + rng.normal(0, 22, 3)) for _ in range(3)]
    for name, paths, radii in (("lung vessel", vessels, (3.6, 2.2)), ("airway", airways, (5.0, 2.6))):
        radius = np.linspace(*radii, len(paths[0]))
        inside = distance_to_balls(points, np.concatenate(paths), np.tile(radius, len(paths))) <= 0
        tissue[inside & (lung | (name == "airway") & (tissue == tissues.index("mediastinum")))] = tissues.index(name)
    return tissue


def _path(rng: np.random.Generator, start: ArrayLike, end: ArrayLike) -> np.ndarray:
    """Return points ``(12, 3)`` in mm along a random curve between two points."""
    along = np.linspace(0, 1, 12)[:, None]
    bend = rng.uniform(-5, 5, 3) * np.sin(np.pi * along)
    return np.asarray(start) + along * np.subtract(end, start) + bend


def _add_ground_glass(
    rng: np.random.Generator, hu: np.ndarray, tissue: np.ndarray, points: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    """Write ground glass at the surface of both lungs into ``hu``; return its mask."""
    parenchyma, lung = _lung(tissue)
    depth = ndimage.distance_transform_edt(lung, sampling=spacing)
    surface = lung & (depth > 4) & (depth < 14) & ((np.abs(points[0]) > 58) | (np.abs(points[1]) > 34))
    lesion = np.zeros(tissue.shape, bool)
    for side in (1, -1):
        for _ in range(rng.integers(2, 5)):
            posterior = surface & (points[1] < 0) if rng.random() < 0.75 else surface
            where = points[:, posterior & (side * points[0] > 0)]
            area = irregular(rng, points, where[:, rng.integers(where.shape[1])], rng.uniform(34, 56)) & lung
            area &= side * points[0] > 0
            hu[area & parenchyma] = rng.uniform(*GROUND_GLASS_HU)
            lesion |= area
    return lesion


def _add_consolidations(
    rng: np.random.Generator, hu: np.ndarray, tissue: np.ndarray, points: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    """Write consolidations in the middle of one lung into ``hu``; return their mask."""
    parenchyma, lung = _lung(tissue)
    side = rng.choice((1, -1))
    lung &= side * points[0] > 0
    to_hilum = np.linalg.norm(points - (np.array(HILUM) * (side, 1, 1))[:, None, None, None], axis=0)
    where = points[:, lung & (to_hilum > 14) & (to_hilum < 48)]
    lesion = np.zeros(tissue.shape, bool)
    for _ in range(rng.integers(1, 3)):
        lesion |= irregular(rng, points, where[:, rng.integers(where.shape[1])], rng.uniform(50, 72)) & lung
    core = ndimage.distance_transform_edt(lesion | ~lung, sampling=spacing) > 5
    hu[lesion & parenchyma] = CONSOLIDATION_RIM_HU
    hu[lesion & core & parenchyma] = rng.uniform(*CONSOLIDATION_HU)
    return lesion


def _lung(tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of the parenchyma and of the parenchyma with its vessels."""
    tissues = tuple(LUNG_HU)
    parenchyma = np.isin(tissue, [tissues.index(name) for name in PARENCHYMA])
    return parenchyma, parenchyma | (tissue == tissues.index("lung vessel"))
