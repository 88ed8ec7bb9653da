"""Draw a case of any modalities, on which a package for another data set than its bundle's is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .recipe import Phantom, PhantomRecipe

TISSUES = ("air", "fat", "muscle", "organ")
HU = (-1000.0, -100.0, 50.0, 120.0)  # of the tissues
SIGNAL = (20.0, 800.0, 400.0, 600.0)  # of the tissues in MRI and in any other modality
NOISE = 10.0


@dataclass(kw_only=True)
class BodyPhantom(PhantomRecipe):
    """Draw an ellipsoid of muscle below a layer of fat, with an organ in its middle.

    Args:
        modalities: any names; those of CT, ``CT`` and ``HU``, get HU.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.
    """

    modalities: Sequence[str]
    size: Sequence[int] = (32, 32, 32)
    spacing: Sequence[float] = (2.0, 2.0, 2.0)

    labels: ClassVar[dict[int, str]] = {1: "organ"}
    smallest_field_of_view: ClassVar[tuple[float, float, float]] = (0, 0, 0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        """Draw one case; the phantom has no classes."""
        middle = np.reshape(self.size, (3, 1, 1, 1)) / 2 - 0.5
        radius = np.linalg.norm((np.indices(self.size) - middle) / (middle + 0.5), axis=0)
        tissue = np.digitize(radius, [0.95, 0.8, 0.3])
        images = {}
        for name in self.modalities:
            values = np.array(HU if name.strip().lower() in ("ct", "hu") else SIGNAL)[tissue]
            images[name] = np.rint(values + rng.normal(0, NOISE, tissue.shape)).astype(np.float32)
        label = (tissue == TISSUES.index("organ")).astype(np.uint8)
        return Phantom(images, label, np.diag([*self.spacing, 1.0]))
