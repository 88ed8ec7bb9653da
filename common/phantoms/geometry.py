"""Bodies of the phantoms on a grid of points in millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BUMP = 0.08  # amplitude of each wave on an irregular surface, relative to its radius


def grid(first: np.ndarray, spacing: np.ndarray, size: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points ``(3, x, y, z)`` in mm and the affine of a grid that begins at ``first``."""
    axes = [start + step * np.arange(n) for start, step, n in zip(first, spacing, size)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = first
    return np.stack(np.meshgrid(*axes, indexing="ij")), affine


def of_another_size(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    """The points as they lie in a body that is up to 4 % larger or smaller along each axis."""
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
    """Write ellipsoids into ``tissue``, each over the ones before it; positions and sizes vary.

    Args:
        rng: source of the randomness.
        tissue: index into ``tissues`` of each point.
        points: ``(3, x, y, z)`` in mm.
        ellipsoids: tissue, centre and semi-axes along R, A, S in mm.
        tissues: the names.
        paired: whether one beside the midline stands for a pair.
        shift: how far a centre moves at most along each axis, mm.
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
    """Append an irregular body with its centre between two corners, apart from those that are there."""
    while True:
        centre = rng.uniform(*limits)
        if all(np.linalg.norm(centre - c) > (diameter + d) / 2 for c, d in placed):
            mask = irregular(rng, points, centre, diameter)
            if not np.any(masks, axis=0)[mask].any():
                break
        diameter *= 0.997  # a crowded phantom has room for a smaller one
    placed.append((centre, diameter))
    masks.append(mask)


def irregular(rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, diameter: float) -> np.ndarray:
    """Points in a random ellipsoid of this equivalent diameter (mm) whose surface has smooth bumps."""
    radii = np.exp(rng.normal(0, 0.12, 3))
    return bumpy(rng, points, centre, radii * (diameter / 2 / radii.prod() ** (1 / 3)))


def bumpy(rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Points in an ellipsoid whose surface has smooth bumps."""
    waves, phases = rng.normal(0, 2, (4, 3)), rng.uniform(0, 2 * np.pi, 4)
    inside = ellipsoid(points, centre, radii) <= 1 + BUMP * len(waves)
    offset = points[:, inside] - centre[:, None]
    direction = offset / np.maximum(np.linalg.norm(offset, axis=0), 1e-6)
    bumps = BUMP * np.sin(waves @ direction + phases[:, None]).sum(0)
    inside[inside] = np.linalg.norm(offset / radii[:, None], axis=0) <= 1 + bumps
    return inside


def ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance from the centre, 1 on the surface."""
    return np.linalg.norm((points - centre[:, None, None, None]) / radii[:, None, None, None], axis=0)


def distance_to_balls(points: np.ndarray, centres: np.ndarray, radii: np.ndarray, reach: float = 0.0) -> np.ndarray:
    """Distance (mm) to the surface of the nearest of some balls, such as those along a vessel; negative inside.

    Args:
        points: ``(3, x, y, z)`` in mm, a regular grid.
        centres: ``(n, 3)`` in mm.
        radii: ``(n,)`` in mm.
        reach: how far outside a ball the distance is computed; infinite beyond.
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
