"""Define recipes that the tests of ``common.phantoms`` draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from common.phantoms import Phantom, PhantomRecipe
from common.phantoms.acquisition import acquire_mr
from common.phantoms.bodies import grid, irregular


@dataclass(kw_only=True)
class Ball(PhantomRecipe):
    """Draw an irregular ball (label 2) in two modalities; the origin of the grid varies."""

    modalities: Sequence[str] = ("A", "B")
    size: Sequence[int] = (12, 10, 8)
    spacing: Sequence[float] = (4.0, 4.0, 5.0)

    all_modalities = ("A", "B")
    labels: ClassVar[Mapping[int, str]] = {2: "ball"}
    case_fields: ClassVar[Mapping[str, str]] = {"site": "bench"}
    default_cases = 4
    smallest_field_of_view = (40.0, 40.0, 30.0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        spacing = np.array(self.spacing)
        points, affine = grid(rng.uniform(-3, 3, 3) - spacing * np.array(self.size) / 2, spacing, self.size)
        ball = irregular(rng, points, np.zeros(3), 20)
        images = {m: acquire_mr(rng, 300 + 200 * ball, points, spacing) for m in self.all_modalities}
        return Phantom({m: images[m] for m in self.modalities}, 2 * ball.astype(np.uint8), affine)


@dataclass(kw_only=True)
class SortedBall(Ball):
    """Draw a ball of one modality with one of three classes."""

    modalities: Sequence[str] = ("CT",)

    all_modalities = ("CT",)
    case_fields: ClassVar[Mapping[str, str]] = {}
    classes = ("red", "green", "blue")
    default_cases = 24
