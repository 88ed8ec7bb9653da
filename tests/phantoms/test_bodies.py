from __future__ import annotations

import numpy as np

from common.phantoms.bodies import add_apart, distance_to_balls, draw_ellipsoids, irregular

from .checks import points_of


def test_distance_to_balls_equals_the_naive_minimum() -> None:
    points, _ = points_of((21, 21, 11), (1.0, 1.0, 2.0))
    centres, radii = np.array([[-4.0, 0, 0], [3, 2, -4]]), np.array([3.0, 4.5])
    naive = np.min(
        [np.linalg.norm(points - c[:, None, None, None], axis=0) - r for c, r in zip(centres, radii)], axis=0
    )
    distance = distance_to_balls(points, centres, radii, reach=2)
    near = naive <= 2
    np.testing.assert_allclose(distance[near], naive[near])
    assert (distance[~near] > 2).all() and np.isinf(distance).any()


def test_an_irregular_body_has_about_the_volume_of_its_ball() -> None:
    points, spacing = points_of((60, 60, 60), (1.0, 1.0, 1.0))
    bodies = [irregular(np.random.default_rng(seed), points, np.zeros(3), 30.0) for seed in range(12)]
    volumes = [body.sum() * spacing.prod() / (np.pi * 30**3 / 6) for body in bodies]
    assert 0.85 < np.mean(volumes) < 1.15 and min(volumes) > 0.5 and max(volumes) < 1.8


def test_bodies_are_placed_apart() -> None:
    points, _ = points_of((50, 50, 30), (2.0, 2.0, 3.0))
    rng = np.random.default_rng(0)
    placed, masks = [(np.zeros(3), 30.0)], [irregular(rng, points, np.zeros(3), 30.0)]
    for _ in range(3):
        add_apart(rng, points, placed, masks, 25.0, ((-40, -40, -30), (40, 40, 30)))
    assert len(placed) == len(masks) == 4
    assert np.sum(masks, axis=0).max() == 1 and all(mask.any() for mask in masks)


def test_ellipsoids_are_drawn_in_order_and_in_pairs() -> None:
    points, _ = points_of((41, 21, 11), (2.0, 2.0, 2.0))
    tissue = np.zeros(points.shape[1:], np.intp)
    ellipsoids = (("fat", (0, 0, 0), (30, 15, 8)), ("bone", (20, 0, 0), (6, 6, 6)))
    draw_ellipsoids(np.random.default_rng(0), tissue, points, ellipsoids, ("air", "fat", "bone"), paired=True, shift=0)
    assert tissue[0, 0, 0] == 0 and tissue[20, 10, 5] == 1
    assert tissue[10, 10, 5] == tissue[30, 10, 5] == 2
    np.testing.assert_array_equal(tissue, tissue[::-1])
