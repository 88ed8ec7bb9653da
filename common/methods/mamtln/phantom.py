"""Draw synthetic CT of an abdomen with a tumour of the stomach, in thick slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from ...errors import InputError
from ...phantoms.acquisition import acquire_ct
from ...phantoms.bodies import distance_to_balls, draw_ellipsoids, grid, irregular, vary_size
from ...phantoms.recipe import Phantom, PhantomRecipe
from ...phantoms.torso import TORSO_HU, attenuation, draw_torso

STOMACH_HU = {
    **TORSO_HU,
    "liver": 112,
    "spleen": 122,
    "kidney": 150,
    "vessel": 155,
    "pancreas": 96,
    "bile": 8,
    "bowel wall": 66,
    "bowel content": 30,
    "stomach wall": 64,
    "stomach fluid": 12,
    "stomach gas": -930,
    "mass": 116,
    "tumour": 116,
    "tumour vessel": 230,
    "small node": 45,
    "bright node": 220,
}
# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the body.
STOMACH_ORGANS = (
    ("liver", (60, 4, 24), (46, 56, 52)),
    ("liver", (24, 40, 34), (34, 22, 24)),
    ("spleen", (-68, -36, 18), (20, 26, 34)),
    ("kidney", (54, -44, -26), (19, 18, 42)),
    ("fat", (47, -42, -26), (7, 7, 20)),
    ("kidney", (-52, -44, -22), (19, 18, 42)),
    ("fat", (-45, -42, -22), (7, 7, 20)),
    ("vessel", (-9, -27, 0), (9, 9, 600)),  # aorta
    ("vessel", (15, -28, 0), (11, 8, 600)),  # inferior vena cava
    ("pancreas", (2, -6, -16), (38, 8, 9)),
    ("bile", (44, 34, -24), (11, 13, 18)),
)
# Points on the axis of the stomach from the fundus to the pylorus, and its radius there, mm.
STOMACH_AXIS = ((-48, -4, 46), (-58, 16, 20), (-52, 34, -8), (-12, 42, -24), (24, 32, -22))
STOMACH_RADII = (22, 25, 23, 19, 12)
STOMACH_WALL = 5.0  # mm
COELIAC_TRUNK = (-6, -12, 4)  # mm; the stomach drains to the lymph nodes around it

SLICE_SPREAD = 3 / 13  # relative variation of the slice distance: 5 to 8 mm around 6.5 mm
BESIDE = 26.0  # mm, largest distance from the tumour to the surface of a node beside it


@dataclass(kw_only=True)
class StomachPhantom(PhantomRecipe):
    """Draw a CT of an abdomen in thick slices with one tumour (label 1) in the wall of the stomach.

    The tumour thickens the wall somewhere between fundus and pylorus. Masses with the same HU lie elsewhere in the
    abdomen, and liver, spleen and pancreas are within 20 HU, so only its place in the stomach identifies the tumour.
    Small dark lymph nodes lie along each stomach. In ``positive`` cases, large nodes as bright as vessels and kidneys
    lie beside the tumour, on the side of the coeliac trunk. Anatomy, positions, HU, slice distance and noise differ
    from case to case.

    Args:
        size: voxels along x, y, z; the number of slices varies by up to 1 either way.
        spacing: mm along x, y, z; the slice distance varies, by default from 5 to 8 mm.
        noise: factor of the noise.
        nodes: smallest and largest number of large nodes beside the tumour of a positive case.
        decoys: number of nodes as large and bright in every case, far from the tumour.

    Raises:
        InputError: the field of view is smaller than 220 x 180 x 80 mm, or a number of nodes is below 1, or of decoys
            below 0.
    """

    modalities: Sequence[str] = field(default=("CT",), init=False)
    size: Sequence[int] = (96, 80, 17)
    spacing: Sequence[float] = (3.0, 3.0, 6.5)
    nodes: Sequence[int] = (10, 14)
    decoys: int = 0

    all_modalities = ("CT",)
    labels: ClassVar[Mapping[int, str]] = {1: "tumour"}
    classes = ("negative", "positive")
    default_cases = 48
    smallest_field_of_view = (220.0, 180.0, 80.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.nodes
        if not 1 <= low <= high or self.decoys < 0:
            raise InputError(
                f"nodes {list(self.nodes)}, decoys {self.decoys}: expected 1 <= smallest <= largest, and decoys >= 0"
            )

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        size = np.array([*self.size[:2], self.size[2] + rng.integers(-1, 2)])
        spacing = np.array(self.spacing) * (1, 1, 1 + rng.uniform(-1, 1) * SLICE_SPREAD)
        first = [*rng.uniform(-4, 4, 2), 0] - spacing * (size - 1) / 2
        points, affine = grid(first, spacing, size)
        nodes = self.nodes if class_name == "positive" else None
        tissue = draw_abdomen(rng, vary_size(rng, points), spacing, nodes, self.decoys)
        image = acquire_ct(rng, attenuation(rng, tissue, STOMACH_HU), spacing, self.noise)
        label = np.isin(tissue, [tuple(STOMACH_HU).index(name) for name in ("tumour", "tumour vessel")])
        return Phantom({"CT": image}, label.astype(np.uint8), affine)


def draw_abdomen(
    rng: np.random.Generator,
    points: np.ndarray,
    spacing: np.ndarray,
    nodes: Sequence[int] | None = None,
    decoys: int = 0,
) -> np.ndarray:
    """Return the index into :data:`STOMACH_HU` of each point.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        spacing: mm along x, y, z.
        nodes: smallest and largest number of large bright nodes beside the tumour; None draws none.
        decoys: number of such nodes far from the tumour.
    """
    tissues = tuple(STOMACH_HU)
    tissue, cavity = draw_torso(rng, points, tissues, content="fat")
    organs = tissue.copy()
    draw_ellipsoids(rng, organs, points, STOMACH_ORGANS, tissues, shift=4)
    tissue[cavity] = organs[cavity]

    stomach, tumour = _stomach_with_tumour(rng, points, cavity)
    outside = ndimage.distance_transform_edt(stomach > 0, sampling=spacing)
    _draw_bowel_and_masses(rng, tissue, points, cavity, outside)
    level = rng.uniform(14, 34)  # mm, surface of the fluid; the patient lies on the back
    tissue[(stomach <= 0) & cavity] = tissues.index("stomach wall")
    lumen = (stomach < -STOMACH_WALL) & cavity
    tissue[lumen] = np.where(points[1] > level, tissues.index("stomach gas"), tissues.index("stomach fluid"))[lumen]
    tissue[tumour] = tissues.index("tumour")
    # as bright as the nodes, so that clipping to the HU of tumours keeps the nodes
    within = points[:, tumour]
    vessels = within[:, rng.choice(within.shape[1], 3)].T
    tissue[tumour & (distance_to_balls(points, vessels, np.full(3, 4.5)) <= 0)] = tissues.index("tumour vessel")
    distance = ndimage.distance_transform_edt(~tumour, sampling=spacing)
    _draw_nodes(rng, tissue, points, outside, distance, nodes, decoys)
    return tissue


def _stomach_with_tumour(
    rng: np.random.Generator, points: np.ndarray, cavity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance (mm) to the outer surface of the stomach, negative inside, and the mask of the tumour."""
    knots = np.linspace(0, 1, len(STOMACH_AXIS))
    axis = CubicSpline(knots, np.array(STOMACH_AXIS, float) + rng.uniform(-6, 6, (len(knots), 3)))
    radius = CubicSpline(knots, np.array(STOMACH_RADII) * rng.uniform(0.88, 1.12, len(knots)))
    along = np.linspace(0, 1, 40)
    stomach = distance_to_balls(points, axis(along), radius(along), reach=12)

    deepest = np.abs(points[2]).max() - 16
    while True:
        place = rng.uniform(0.1, 0.92)
        tangent, aside = axis(place, 1), rng.normal(size=3)
        aside -= tangent * (aside @ tangent) / (tangent @ tangent)
        centre = axis(place) + radius(place) * aside / np.linalg.norm(aside)
        if abs(centre[2]) < deepest:
            break
    inner = min(rng.uniform(14, 20), 0.9 * radius(place))
    body = irregular(rng, points, centre, rng.uniform(44, 58))
    parts, _ = ndimage.label(body & (stomach <= 4) & (stomach > -inner) & cavity)
    return stomach, parts == np.bincount(parts[parts > 0]).argmax()  # drops pieces that reach the opposite wall


def _draw_bowel_and_masses(
    rng: np.random.Generator, tissue: np.ndarray, points: np.ndarray, cavity: np.ndarray, outside: np.ndarray
) -> None:
    """Draw loops of bowel with gas or fluid, and masses with the HU of the tumour; none touches the stomach."""
    tissues = tuple(STOMACH_HU)
    fat = tissue == tissues.index("fat")
    placed: list[tuple[np.ndarray, float]] = []
    for name in ("mass", "mass", "mass", *["bowel wall"] * 6):
        diameter = rng.uniform(26, 40)
        for _ in range(20):
            where = points[:, cavity & fat & (outside > diameter / 2 + 4)]
            centre = where[:, rng.integers(where.shape[1])]
            if all(np.linalg.norm(centre - c) > 0.45 * (diameter + d) for c, d in placed):
                break
        else:
            continue  # a crowded abdomen gets one body less
        placed.append((centre, diameter))
        body = irregular(rng, points, centre, diameter) & cavity & (outside > 4)
        tissue[body] = tissues.index(name)
        if name == "bowel wall":
            lumen = distance_to_balls(points, centre[None], np.array([0.3 * diameter])) <= 0
            content = rng.choice(("stomach gas", "bowel content"))
            tissue[body & lumen] = tissues.index(content)


def _draw_nodes(
    rng: np.random.Generator,
    tissue: np.ndarray,
    points: np.ndarray,
    outside: np.ndarray,
    distance: np.ndarray,
    nodes: Sequence[int] | None,
    decoys: int,
) -> None:
    """Draw lymph nodes: small dark ones and large bright ones, beside the tumour and far from it.

    Args:
        rng: source of randomness.
        tissue: index into :data:`STOMACH_HU` of each point; changed in place.
        points: ``(3, x, y, z)`` in mm.
        outside: distance to the stomach in mm.
        distance: distance to the tumour in mm.
        nodes: smallest and largest number of large bright nodes beside the tumour; None draws none.
        decoys: number of such nodes far from the tumour.
    """
    tissues = tuple(STOMACH_HU)
    fat = tissue == tissues.index("fat")
    to_trunk = np.linalg.norm(points - np.array(COELIAC_TRUNK)[:, None, None, None], axis=0)
    placed: list[tuple[np.ndarray, float]] = []

    def add(name: str, diameter: float, where: np.ndarray) -> None:
        candidates = points[:, where]
        for c, d in placed:
            apart = np.linalg.norm(candidates - c[:, None], axis=0) > 0.55 * (diameter + d)
            candidates = candidates[:, apart]
        if candidates.shape[1]:
            centre = candidates[:, rng.integers(candidates.shape[1])]
            placed.append((centre, diameter))
            node = distance_to_balls(points, centre[None], np.array([diameter / 2])) <= 0
            tissue[node & (outside > 0) & (distance > 0)] = tissues.index(name)

    for _ in range(rng.integers(nodes[0], nodes[1] + 1) if nodes else 0):
        diameter = rng.uniform(18, 26)
        beside = (outside > diameter / 3) & (distance > diameter / 3) & (distance < diameter / 2 + BESIDE)
        beside &= fat if (beside & fat).any() else True
        add("bright node", diameter, beside & (to_trunk <= np.median(to_trunk[beside])))
    for _ in range(4):
        diameter = rng.uniform(8, 10)
        add("small node", diameter, fat & (outside > diameter / 2) & (outside < 16) & (distance > 3))
    for _ in range(decoys):
        diameter = rng.uniform(18, 26)
        add("bright node", diameter, fat & (outside > diameter / 3) & (distance > diameter + BESIDE))
