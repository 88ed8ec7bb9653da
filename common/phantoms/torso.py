"""What the phantoms of the abdomen and the chest have in common: body wall, spine, ribs, table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .geometry import draw_ellipsoids, ellipsoid

TORSO_HU = {"air": -1000, "table": -550, "fat": -100, "muscle": 62, "bone": 420, "marrow": 190, "cord": 35}

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the body, each over the ones before
# it. One of 600 mm along S is a cylinder.
BODY = (
    ("fat", (0, 0, 0), (132, 96, 600)),
    ("muscle", (0, -2, 0), (122, 86, 600)),
)
CAVITY = ((0, 2, 0), (109, 73, 600))  # centre and semi-axes
SPINE = (
    ("muscle", (30, -67, 0), (26, 16, 600)),
    ("muscle", (-30, -67, 0), (26, 16, 600)),
    ("bone", (0, -77, 0), (16, 10, 600)),
    ("bone", (0, -54, 0), (21, 18, 600)),
    ("marrow", (0, -54, 0), (17, 14, 600)),
    ("cord", (0, -74, 0), (9, 6, 600)),
)
RIBS = ((0, -1, 0), (116, 80, 600))
RIB_SPACING = 27.0  # mm
TABLE_GAP = 6.0  # mm, mattress between the table and the back
TABLE = (105.0, 12.0)  # half its width and its thickness, mm


def draw_torso(
    rng: np.random.Generator, points: np.ndarray, tissues: Sequence[str], content: str
) -> tuple[np.ndarray, np.ndarray]:
    """A torso on a table, without organs.

    Args:
        rng: source of the randomness.
        points: ``(3, x, y, z)`` in mm.
        tissues: the names, those of :data:`TORSO_HU` among them; the first is the air.
        content: tissue that fills the cavity.

    Returns:
        the index into ``tissues`` of each point, and the mask of the cavity.
    """
    tissue = np.zeros(points.shape[1:], dtype=np.intp)
    draw_ellipsoids(rng, tissue, points, BODY, tissues)
    back = BODY[0][1][1] - BODY[0][2][1] - TABLE_GAP
    depth = back + points[0] ** 2 / 1500 - points[1]  # the table is a little hollow
    table = (depth > 0) & (depth < TABLE[1]) & (np.abs(points[0]) < TABLE[0])
    tissue[table & (tissue == 0)] = tissues.index("table")

    # a rib lies lower in front than at the back and does not reach the midline
    phase = (points[2] + 0.4 * points[1]) / RIB_SPACING + rng.random()
    ribs = (np.abs(ellipsoid(points, *np.array(RIBS, float)) - 1) < 0.045) & (np.cos(2 * np.pi * phase) > 0.4)
    tissue[ribs & (points[1] < 55) & (tissue == tissues.index("muscle"))] = tissues.index("bone")

    cavity = ellipsoid(points, *np.array(CAVITY, float)) <= 1
    tissue[cavity] = tissues.index(content)
    draw_ellipsoids(rng, tissue, points, SPINE, tissues, shift=0.5)
    return tissue, cavity & (tissue == tissues.index(content))


def attenuation(rng: np.random.Generator, tissue: np.ndarray, hu: Mapping[str, float]) -> np.ndarray:
    """HU of each point; that of each tissue but the air, the first, is up to 4 HU off its value in ``hu``."""
    values = np.array(list(hu.values()), float)
    values[1:] += rng.uniform(-4, 4, len(values) - 1)
    return values[tissue]
