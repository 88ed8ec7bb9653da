"""Draw synthetic MRI of a head with a tumour in the nasopharynx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ...phantoms.acquisition import acquire_mr
from ...phantoms.bodies import add_apart, draw_ellipsoids, grid, irregular, vary_size
from ...phantoms.recipe import Phantom, PhantomRecipe

# Signal in T1, T2 and CET1, before gain, bias field and noise.
HEAD_SIGNALS = {
    "air": (0, 0, 0),
    "bone": (70, 50, 70),
    "marrow": (640, 400, 690),
    "fat": (900, 600, 860),
    "muscle": (290, 230, 340),
    "gland": (580, 480, 660),
    "grey matter": (430, 460, 450),
    "white matter": (500, 370, 520),
    "fluid": (140, 1000, 150),
    "mucosa": (340, 850, 640),
    "vessel": (40, 40, 600),
    "tumour": (440, 640, 800),
    "inflammation": (230, 640, 800),
    "lymphoid tissue": (440, 640, 480),
    "venous plexus": (440, 980, 800),
}
# Each has the signal of the tumour in two modalities, so no two modalities suffice.
HEAD_DISTRACTORS = ("inflammation", "lymphoid tissue", "venous plexus")

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the nasopharynx. Each is drawn over those before it.
# One beside the midline is drawn on both sides.
HEAD_ANATOMY = (
    ("fat", (0, -4, 8), (64, 78, 95)),
    ("fat", (0, 74, -4), (11, 13, 20)),  # nose
    ("muscle", (0, -4, 8), (58, 71, 88)),
    ("fat", (40, 38, -16), (13, 15, 22)),  # cheeks
    ("fat", (0, 34, -46), (26, 30, 17)),  # floor of the mouth
    ("muscle", (0, 34, -46), (20, 24, 14)),  # tongue
    ("fat", (30, -40, -44), (22, 14, 22)),  # neck
    ("muscle", (20, -46, -44), (17, 12, 26)),
    ("fat", (26, 2, -10), (6, 14, 24)),  # parapharyngeal spaces
    ("gland", (51, -8, -18), (8, 15, 24)),  # parotid glands
    ("bone", (44, 10, -24), (6, 17, 32)),  # mandible
    ("marrow", (44, 10, -24), (3, 13, 28)),
    ("bone", (48, -32, 4), (12, 14, 18)),  # mastoids
    ("bone", (0, -42, 2), (44, 29, 38)),  # posterior fossa
    ("grey matter", (0, -42, 2), (40, 25, 34)),
    ("white matter", (18, -42, 2), (14, 17, 26)),
    ("bone", (0, -6, 62), (59, 70, 52)),  # braincase
    ("grey matter", (0, -6, 62), (55, 66, 48)),
    ("white matter", (24, -6, 62), (20, 52, 40)),
    ("bone", (0, -14, 10), (14, 9, 24)),  # clivus
    ("marrow", (0, -14, 10), (11, 6, 21)),
    ("bone", (0, -20, -34), (13, 10, 22)),  # upper cervical spine
    ("marrow", (0, -20, -34), (9, 6, 19)),
    ("bone", (0, 10, 22), (16, 14, 10)),  # sphenoid sinus
    ("air", (0, 10, 22), (13, 11, 7)),
    ("fluid", (0, -37, -20), (11, 9, 60)),  # subarachnoid space
    ("white matter", (0, -37, -20), (6, 5, 60)),  # brainstem and cord
    ("fluid", (0, -52, 12), (6, 4, 10)),  # fourth ventricle
    ("fluid", (8, -6, 48), (5, 22, 11)),  # lateral ventricles
    ("fat", (28, 48, 30), (15, 19, 14)),  # orbits
    ("fluid", (28, 54, 30), (11, 11, 11)),  # eyes
    ("bone", (29, 40, -2), (17, 19, 20)),  # maxillary sinuses
    ("mucosa", (29, 40, -2), (15, 17, 18)),
    ("air", (29, 40, -2), (12, 14, 15)),
    ("mucosa", (0, 44, 0), (14, 32, 26)),  # nasal cavity
    ("air", (0, 44, 0), (11, 29, 23)),
    ("mucosa", (0, 44, 0), (1.6, 29, 23)),  # septum
    ("mucosa", (7, 40, -7), (3.5, 20, 6)),  # turbinates
    ("mucosa", (0, 4, -14), (13, 11, 44)),  # pharynx
    ("air", (0, 5, -14), (9, 7, 42)),
    ("vessel", (27, -14, -20), (4, 4, 40)),  # carotid arteries
    ("vessel", (33, -20, -20), (5, 5, 40)),  # jugular veins
)


@dataclass(kw_only=True)
class HeadPhantom(PhantomRecipe):
    """Draw MRI of a head with one tumour (label 1) in the nasopharynx: T1, T2 and contrast-enhanced T1.

    An inflammation, lymphoid tissue and a venous plexus lie around the tumour, irregular and about as large. Each has
    the signal of the tumour in two modalities and another one in the third, so the tumour shows only in all three
    together. Anatomy, positions, gain, bias fields and noise differ from case to case.

    Args:
        modalities: names of the modalities to return, in order; each is the same as in the full set.
        size: voxels along x, y, z; the number of slices varies by up to 2 either way.
        spacing: mm along x, y, z; varies by up to 10 % in plane and 15 % between slices.
        noise: factor of the noise.
        bias_field: factor of the bias field.

    Raises:
        InputError: a modality is unknown or repeated, or the field of view is smaller than 64 mm along an axis.
    """

    modalities: Sequence[str] = ("T1", "T2", "CET1")
    size: Sequence[int] = (84, 96, 20)
    spacing: Sequence[float] = (2.0, 2.0, 4.5)
    bias_field: float = field(default=1.0, repr=False)

    all_modalities = ("T1", "T2", "CET1")
    labels: ClassVar[Mapping[int, str]] = {1: "tumour"}
    smallest_field_of_view = (64.0, 64.0, 64.0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        size = np.array([*self.size[:2], self.size[2] + rng.integers(-2, 3)])
        spacing = np.array(self.spacing) * (1 + rng.uniform(-1, 1, 2) * (0.10, 0.15))[[0, 0, 1]]
        first = [*rng.uniform(-3, 3, 2), 0] - spacing * (size - 1) / 2
        points, affine = grid(first, spacing, size)

        tissues = tuple(HEAD_SIGNALS)
        tissue = np.zeros(points.shape[1:], dtype=np.intp)
        draw_ellipsoids(rng, tissue, vary_size(rng, points), HEAD_ANATOMY, tissues, paired=True)
        tumour, distractors = _lesions(rng, points)
        for name, mask in [*zip(HEAD_DISTRACTORS, distractors), ("tumour", tumour)]:
            tissue[mask] = tissues.index(name)
        images = {}
        for modality, signal in zip(self.all_modalities, np.array(list(HEAD_SIGNALS.values()), float).T):
            images[modality] = acquire_mr(rng, signal[tissue], points, spacing, self.noise, self.bias_field)
        return Phantom({m: images[m] for m in self.modalities}, tumour.astype(np.uint8), affine)


def _lesions(rng: np.random.Generator, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the masks of the tumour and of one distractor of each kind; no two overlap."""
    diameter = rng.uniform(25, 40)
    placed = [(rng.uniform((-20, -8, -8), (20, 14, 8)), diameter)]
    masks = [irregular(rng, points, *placed[0])]
    for _ in HEAD_DISTRACTORS:
        add_apart(rng, points, placed, masks, diameter * rng.uniform(0.9, 1.2), ((-36, -22, -26), (36, 38, 20)))
    return masks[0], masks[1:]
