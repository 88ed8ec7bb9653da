"""Draw the torso that the CT phantoms share: body wall, spine, ribs and table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .bodies import draw_ellipsoids, ellipsoid

TORSO_HU = {"air": -1000, "table": -550, "fat": -100, "muscle": 62, "bone": 420, "marrow": 190, "cord": 35}

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the body. Each is drawn over those
# before it. A semi-axis of 600 mm along S makes a cylinder.
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
TABLE_GAP = 6.0  # mm, thickness of the mattress between table and back
TABLE = (105.0, 12.0)  # half width and thickness, mm


def draw_torso(
    rng: np.random.Generator, points: np.ndarray, tissues: Sequence[str], content: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a torso on a table, without organs.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        tissues: names of all tissues, including those of :data:`TORSO_HU`; the first is air.
        content: name of the tissue that fills the cavity.

    Returns:
        index into ``tissues`` of each point, ``(x, y, z)``; mask of the cavity, ``(x, y, z)``.
    """
    tissue = np.zeros(points.shape[1:], dtype=np.intp)
    draw_ellipsoids(rng, tissue, points, BODY, tissues)
    back = BODY[0][1][1] - BODY[0][2][1] - TABLE_GAP
    depth = back + points[0] ** 2 / 1500 - points[1]  # the table is slightly hollow
    table = (depth > 0) & (depth < TABLE[1]) & (np.abs(points[0]) < TABLE[0])
    tissue[table & (tissue == 0)] = tissues.index("table")

    # ribs slope down to the front and end before the midline
    phase = (points[2] + 0.4 * points[1]) / RIB_SPACING + rng.random()
    ribs = (np.abs(ellipsoid(points, *np.array(RIBS, float)) - 1) < 0.045) & (np.cos(2 * np.pi * phase) > 0.4)
    tissue[ribs & (points[1] < 55) & (tissue == tissues.index("muscle"))] = tissues.index("bone")

    cavity = ellipsoid(points, *np.array(CAVITY, float)) <= 1
    tissue[cavity] = tissues.index(content)
    draw_ellipsoids(rng, tissue, points, SPINE, tissues, shift=0.5)
    return tissue, cavity & (tissue == tissues.index(content))


def attenuation(rng: np.random.Generator, tissue: np.ndarray, hu: Mapping[str, float]) -> np.ndarray:
    """Return the HU of each point; each tissue except air is shifted by up to 4 HU.

    Args:
        rng: source of randomness.
        tissue: index into ``hu`` of each point.
        hu: name of a tissue -> mean HU; the first is air.
    """
    values = np.array(list(hu.values()), float)
    values[1:] += rng.uniform(-4, 4, len(values) - 1)
    return values[tissue]
