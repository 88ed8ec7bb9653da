"""Draw synthetic CT of a torso with tumours of the liver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ...phantoms.acquisition import acquire_ct
from ...phantoms.bodies import bumpy, distance_to_balls, draw_ellipsoids, grid, irregular, vary_size
from ...phantoms.recipe import Phantom, PhantomRecipe
from ...phantoms.torso import TORSO_HU, attenuation, draw_torso

LIVER_HU = {
    **TORSO_HU,
    "muscle": 76,
    "lung": -840,
    "heart": 112,
    "spleen": 114,
    "kidney": 120,
    "vessel": 138,
    "pancreas": 92,
    "bile": 8,
    "stomach wall": 76,
    "food": 98,
    "bowel": 102,
    "gas": -930,
    "cyst": 66,
    "liver": 104,
    "hepatic vessel": 138,
    "tumour": 66,
}
# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the body. The liver is drawn over the
# first and under the others.
ABOVE_THE_LIVER = (
    ("lung", (56, -4, 100), (50, 64, 82)),
    ("lung", (-56, -4, 100), (50, 64, 86)),
    ("heart", (-16, 26, 84), (46, 38, 36)),
)
LIVER_LOBES = (((52, 4, 0), (52, 62, 66)), ((4, 40, 20), (46, 24, 34)))
AROUND_THE_LIVER = (
    ("spleen", (-68, -32, 6), (24, 30, 44)),
    ("kidney", (50, -46, -50), (20, 19, 42)),
    ("fat", (43, -43, -50), (7, 7, 18)),
    ("kidney", (-50, -46, -44), (20, 19, 42)),
    ("fat", (-43, -43, -44), (7, 7, 18)),
    ("stomach wall", (-52, 26, 6), (36, 34, 40)),
    ("food", (-52, 26, 6), (31, 29, 35)),
    ("gas", (-52, 46, 10), (20, 8, 22)),
    ("vessel", (-8, -27, 0), (9, 9, 600)),  # aorta
    ("vessel", (16, -26, 0), (11, 9, 600)),  # inferior vena cava
    ("pancreas", (-8, -4, -38), (42, 10, 12)),
    ("bile", (36, 42, -44), (13, 15, 20)),  # gallbladder
)
# Start and end of hepatic veins and portal branches, mm.
VESSELS = (
    ((18, -18, 30), (70, 20, 24)),
    ((18, -18, 30), (50, 44, 34)),
    ((18, -18, 30), (4, 46, 28)),
    ((20, 4, -18), (76, -14, -14)),
    ((20, 4, -18), (64, 32, -22)),
)


@dataclass(kw_only=True)
class LiverPhantom(PhantomRecipe):
    """Draw a CT of a torso with 1 to 3 tumours in the liver; the label has the code of LiTS: 1 liver, 2 tumour.

    Spleen, kidneys, heart, a full stomach and bowel are within 20 HU of the liver, so only place and shape identify
    it. The tumours are 38 HU darker than the liver, close to muscle and equal to a cyst in the spleen and one in a
    kidney. Vessels in the liver belong to it. Anatomy, positions, HU, number of slices and noise differ from case to
    case.

    Args:
        size: voxels along x, y, z; the number of slices varies by up to a fifth either way.
        spacing: mm along x, y, z.
        noise: factor of the noise.

    Raises:
        InputError: the field of view is smaller than 240 x 200 x 140 mm.
    """

    modalities: Sequence[str] = field(default=("CT",), init=False)
    size: Sequence[int] = (72, 60, 37)
    spacing: Sequence[float] = (4.0, 4.0, 5.0)

    all_modalities = ("CT",)
    labels: ClassVar[Mapping[int, str]] = {1: "liver", 2: "tumour"}
    default_cases = 16
    smallest_field_of_view = (240.0, 200.0, 140.0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        spread = self.size[2] // 5
        size = np.array([*self.size[:2], self.size[2] + rng.integers(-spread, spread + 1)])
        spacing = np.array(self.spacing, float)
        first = rng.uniform(-4, 4, 3) - spacing * (size - 1) / 2
        points, affine = grid(first, spacing, size)
        tissue = draw_upper_abdomen(rng, vary_size(rng, points), spacing)
        image = acquire_ct(rng, attenuation(rng, tissue, LIVER_HU), spacing, self.noise)
        label = np.zeros(tissue.shape, np.uint8)
        for name, value in (("liver", 1), ("hepatic vessel", 1), ("tumour", 2)):
            label[tissue == tuple(LIVER_HU).index(name)] = value
        return Phantom({"CT": image}, label, affine)


def draw_upper_abdomen(rng: np.random.Generator, points: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Return the index into :data:`LIVER_HU` of each point.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        spacing: mm along x, y, z.
    """
    tissues = tuple(LIVER_HU)
    tissue, cavity = draw_torso(rng, points, tissues, content="fat")
    organs = tissue.copy()
    _draw_bowel(rng, organs, points)
    draw_ellipsoids(rng, organs, points, ABOVE_THE_LIVER, tissues, shift=3)
    for centre, radii in np.array(LIVER_LOBES, float):
        lobe = bumpy(rng, points, centre + rng.uniform(-4, 4, 3), radii * rng.uniform(0.9, 1.06, 3))
        diaphragm = ndimage.binary_dilation(lobe) & (organs == tissues.index("lung"))
        organs[diaphragm] = tissues.index("muscle")
        organs[lobe] = tissues.index("liver")
    draw_ellipsoids(rng, organs, points, AROUND_THE_LIVER, tissues, shift=4)
    tissue[cavity] = organs[cavity]
    _draw_in_liver(rng, tissue, points, spacing)
    for organ in ("spleen", "kidney"):
        where = points[:, tissue == tissues.index(organ)]
        body = irregular(rng, points, where[:, rng.integers(where.shape[1])], rng.uniform(18, 28))
        tissue[body & (tissue == tissues.index(organ))] = tissues.index("cyst")
    return tissue


def _draw_bowel(rng: np.random.Generator, tissue: np.ndarray, points: np.ndarray) -> None:
    """Draw loops of bowel below the other organs, most of them full."""
    tissues = tuple(LIVER_HU)
    for _ in range(12):
        centre = rng.uniform((-80, -10, -120), (80, 55, -40))
        body = irregular(rng, points, centre, rng.uniform(30, 44))
        tissue[body] = tissues.index(rng.choice(("bowel", "bowel", "gas")))


def _draw_in_liver(rng: np.random.Generator, tissue: np.ndarray, points: np.ndarray, spacing: np.ndarray) -> None:
    """Draw the vessels and tumours of the liver."""
    tissues = tuple(LIVER_HU)
    liver = tissue == tissues.index("liver")
    depth = ndimage.distance_transform_edt(liver, sampling=spacing)
    along = np.linspace(0, 1, 16)[:, None]
    for start, end in np.array(VESSELS, float):
        path = start + along * (end + rng.uniform(-8, 8, 3) - start) + rng.uniform(-4, 4, 3) * np.sin(np.pi * along)
        vessel = distance_to_balls(points, path, np.linspace(5.5, 2.5, len(path))) <= 0
        tissue[vessel & liver] = tissues.index("hepatic vessel")
    for _ in range(rng.integers(1, 4)):
        diameter = rng.uniform(20, 40)
        where = points[:, depth > min(0.45 * diameter, 0.7 * depth.max())]
        body = irregular(rng, points, where[:, rng.integers(where.shape[1])], diameter)
        tissue[body & (depth > spacing.max())] = tissues.index("tumour")
