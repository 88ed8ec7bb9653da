"""Draw bodies on a grid of points in millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUMP = 0.08  # amplitude of each wave on an irregular surface, relative to the radius


def grid(first: np.ndarray, spacing: np.ndarray, size: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points ``(3, x, y, z)`` in mm and the 4x4 affine of a grid.

    Args:
        first: position of the first voxel along x, y, z in mm.
        spacing: mm along x, y, z.
        size: voxels along x, y, z.
    """
    axes = [start + step * np.arange(n) for start, step, n in zip(first, spacing, size)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = first
    return np.stack(np.meshgrid(*axes, indexing="ij")), affine


def vary_size(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """Return the points after scaling by a random factor, up to 4 % along each axis, which changes the body's size."""
    return points / rng.uniform(0.96, 1.04, 3)[:, None, None, None]


def draw_ellipsoids(
    rng: np.random.Generator,
    tissue: np.ndarray,
    points: np.ndarray,
    ellipsoids: Sequence,
    tissues: Sequence[str],
    paired: bool = False,
    shift: float = 1.0,
) -> None:
    """Write ellipsoids into ``tissue``, each over those before it; positions and sizes vary.

    Args:
        rng: source of randomness.
        tissue: index into ``tissues`` of each point; changed in place.
        points: ``(3, x, y, z)`` in mm.
        ellipsoids: tissue, centre and semi-axes along R, A, S in mm.
        tissues: names of all tissues.
        paired: whether an ellipsoid beside the midline is drawn on both sides.
        shift: largest shift of a centre along each axis, mm.
    """
    for name, centre, radii in ellipsoids:
        offset, stretch = rng.uniform(-1, 1, 3) * shift, rng.uniform(0.96, 1.04, 3)
        p = np.stack([np.abs(points[0]), *points[1:]]) if paired and centre[0] else points
        tissue[ellipsoid(p, np.add(centre, offset), np.multiply(radii, stretch)) <= 1] = tissues.index(name)


def add_apart(
    rng: np.random.Generator,
    points: np.ndarray,
    placed: list[tuple[np.ndarray, float]],
    masks: list[np.ndarray],
    diameter: float,
    limits: tuple[Sequence[float], Sequence[float]],
) -> None:
    """Append an irregular body that touches none of the bodies that exist.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        placed: centre and diameter of each body in mm; the new one is appended.
        masks: mask of each body; the new one is appended.
        diameter: mm; shrinks while there is no room.
        limits: lowest and highest position of the centre along x, y, z in mm.
    """
    while True:
        centre = rng.uniform(*limits)
        if all(np.linalg.norm(centre - c) > (diameter + d) / 2 for c, d in placed):
            mask = irregular(rng, points, centre, diameter)
            if not np.any(masks, axis=0)[mask].any():
                break
        diameter *= 0.997  # a crowded phantom has room for a smaller body
    placed.append((centre, diameter))
    masks.append(mask)


def irregular(rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, diameter: float) -> np.ndarray:
    """Return the mask of a random ellipsoid with smooth bumps on its surface.

    Args:
        rng: source of randomness.
        points: ``(3, x, y, z)`` in mm.
        centre: mm.
        diameter: mm, diameter of a ball with the volume of the ellipsoid without bumps.
    """
    radii = np.exp(rng.normal(0, 0.12, 3))
    return bumpy(rng, points, centre, radii * (diameter / 2 / radii.prod() ** (1 / 3)))


def bumpy(rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the mask of an ellipsoid with smooth bumps; centre and semi-axes are in mm."""
    waves, phases = rng.normal(0, 2, (4, 3)), rng.uniform(0, 2 * np.pi, 4)
    inside = ellipsoid(points, centre, radii) <= 1 + BUMP * len(waves)
    offset = points[:, inside] - centre[:, None]
    direction = offset / np.maximum(np.linalg.norm(offset, axis=0), 1e-6)
    bumps = BUMP * np.sin(waves @ direction + phases[:, None]).sum(0)
    inside[inside] = np.linalg.norm(offset / radii[:, None], axis=0) <= 1 + bumps
    return inside


def ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the distance of each point from the centre of an ellipsoid, relative to its surface (1)."""
    return np.linalg.norm((points - centre[:, None, None, None]) / radii[:, None, None, None], axis=0)


def distance_to_balls(points: np.ndarray, centres: np.ndarray, radii: np.ndarray, reach: float = 0.0) -> np.ndarray:
    """Return the distance (mm) to the surface of the nearest ball, negative inside, such as of balls along a vessel.

    Args:
        points: ``(3, x, y, z)`` in mm, a regular grid.
        centres: ``(n, 3)`` in mm.
        radii: ``(n,)`` in mm.
        reach: distance in mm up to which it is computed outside a ball; infinite beyond.
    """
    distance = np.full(points.shape[1:], np.inf)
    axes = [points[0, :, 0, 0], points[1, 0, :, 0], points[2, 0, 0, :]]
    for centre, radius in zip(centres, radii):
        span = radius + reach
        ends = [(np.searchsorted(a, c - span), np.searchsorted(a, c + span, "right")) for a, c in zip(axes, centre)]
        box = tuple(slice(*pair) for pair in ends)
        offset = points[(slice(None), *box)] - centre[:, None, None, None]
        distance[box] = np.minimum(distance[box], np.linalg.norm(offset, axis=0) - radius)
    return distance
