"""Draw synthetic MRI of a brain with a glioma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ...phantoms.acquisition import acquire_mr
from ...phantoms.bodies import add_apart, draw_ellipsoids, grid, irregular, vary_size
from ...phantoms.recipe import Phantom, PhantomRecipe

# Signal in FLAIR, T1, CET1 and T2, before gain, bias field and noise.
BRAIN_SIGNALS = {
    "outside": (0, 0, 0, 0),
    "fluid": (150, 220, 230, 1000),
    "grey matter": (500, 480, 500, 480),
    "white matter": (400, 620, 640, 350),
    "vessel": (130, 200, 1000, 100),
    "oedema": (840, 400, 410, 790),
    "necrosis": (500, 260, 270, 900),
    "enhancing tumour": (840, 400, 1000, 790),
    "cyst": (150, 400, 410, 790),
    "bright cortex": (840, 400, 410, 400),
    "haemorrhage": (840, 820, 1000, 790),
}
# The first two have the signal of oedema in all modalities but one; the last has that of enhancing tumour.
BRAIN_DISTRACTORS = ("cyst", "bright cortex", "haemorrhage")

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the middle of the brain. Each is drawn over those
# before it. One beside the midline is drawn on both sides.
BRAIN_ANATOMY = (
    ("fluid", (0, 2, 8), (64, 78, 54)),
    ("fluid", (0, -42, -34), (46, 30, 24)),
    ("grey matter", (0, 2, 8), (61, 75, 51)),
    ("white matter", (28, 2, 10), (27, 63, 39)),
    ("grey matter", (0, -42, -34), (43, 27, 21)),  # cerebellum
    ("white matter", (17, -42, -34), (17, 14, 11)),
    ("white matter", (0, -20, -38), (13, 12, 26)),  # brainstem
    ("grey matter", (17, 0, 6), (9, 21, 10)),  # basal ganglia and thalami
    ("fluid", (10, 2, 15), (6, 31, 9)),  # lateral ventricles
    ("fluid", (0, -4, 4), (3, 14, 10)),  # third
    ("fluid", (0, -36, -30), (5, 5, 9)),  # fourth
    ("vessel", (0, -12, 55), (4, 52, 4)),  # sagittal sinus
    ("vessel", (28, 12, -6), (24, 4, 4)),  # middle cerebral arteries
    ("vessel", (0, -32, 10), (4, 4, 26)),  # straight sinus
)
WITHOUT_ENHANCEMENT = 0.25  # share of cases


@dataclass(kw_only=True)
class BrainPhantom(PhantomRecipe):
    """Draw skull-stripped MRI of a brain with one glioma: FLAIR, T1, contrast-enhanced T1 and T2, 0 outside the brain.

    The label has the code of BraTS: 2 oedema, and in it the core, 1 necrosis within 4, an enhancing rim. A quarter of
    the cases have no enhancing rim. Each modality is needed:

    - The rim has the signal of oedema, except in CET1; vessels enhance too.
    - A cyst has the signal of oedema, except in FLAIR; bright cortex, except in T2. Ventricles are as bright in T2.
    - A haemorrhage has the signal of the rim, except in T1.

    Anatomy, positions, gain, bias fields and noise differ from case to case.

    Args:
        modalities: names of the modalities to return, in order; each is the same as in the full set.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.
        noise: factor of the noise.
        bias_field: factor of the bias field.

    Raises:
        InputError: a modality is unknown or repeated, or the field of view is smaller than 128 mm along an axis.
    """

    modalities: Sequence[str] = ("FLAIR", "T1", "CET1", "T2")
    size: Sequence[int] = (64, 72, 56)
    spacing: Sequence[float] = (2.5, 2.5, 2.5)
    bias_field: float = field(default=1.0, repr=False)

    all_modalities = ("FLAIR", "T1", "CET1", "T2")
    labels: ClassVar[Mapping[int, str]] = {1: "necrosis and non-enhancing tumour", 2: "oedema", 4: "enhancing tumour"}
    case_fields: ClassVar[Mapping[str, str]] = {"label_code": "brats"}
    smallest_field_of_view = (128.0, 128.0, 128.0)

    def draw(self, rng: np.random.Generator, class_name: str | None) -> Phantom:
        spacing = np.array(self.spacing, float)
        first = rng.uniform(-3, 3, 3) - spacing * (np.array(self.size) - 1) / 2
        points, affine = grid(first, spacing, self.size)

        tissues = tuple(BRAIN_SIGNALS)
        tissue = np.zeros(points.shape[1:], dtype=np.intp)
        draw_ellipsoids(rng, tissue, vary_size(rng, points), BRAIN_ANATOMY, tissues, paired=True)
        brain = tissue > 0
        label, distractors = _glioma(rng, points, spacing, brain)
        for name, mask in zip(BRAIN_DISTRACTORS, distractors):
            tissue[mask & brain] = tissues.index(name)
        for value, name in ((2, "oedema"), (1, "necrosis"), (4, "enhancing tumour")):
            tissue[label == value] = tissues.index(name)
        images = {}
        for modality, signal in zip(self.all_modalities, np.array(list(BRAIN_SIGNALS.values()), float).T):
            acquired = acquire_mr(rng, signal[tissue], points, spacing, self.noise, self.bias_field)
            images[modality] = np.where(brain, np.maximum(acquired, 1), 0).astype(np.float32)
        return Phantom({m: images[m] for m in self.modalities}, label, affine)


def _glioma(
    rng: np.random.Generator, points: np.ndarray, spacing: np.ndarray, brain: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the label in the code of BraTS, and the mask of one distractor of each kind; none of them overlap."""
    diameter = rng.uniform(44, 62)
    side = rng.choice((-1, 1))
    centre = rng.uniform((18, -36, -2), (32, 40, 24)) * (side, 1, 1)
    placed = [(centre, diameter)]
    masks = [irregular(rng, points, centre, diameter) & brain]
    for _ in BRAIN_DISTRACTORS:
        add_apart(rng, points, placed, masks, rng.uniform(28, 40), ((-46, -56, -14), (46, 58, 44)))

    core = irregular(rng, points, centre + rng.uniform(-3, 3, 3), diameter * rng.uniform(0.6, 0.72))
    core &= ndimage.distance_transform_edt(masks[0], sampling=spacing) > max(3, spacing.max())
    enhancing = rng.random() >= WITHOUT_ENHANCEMENT
    rim = core & (ndimage.distance_transform_edt(core, sampling=spacing) <= rng.uniform(5, 8))
    label = np.where(masks[0], 2, 0).astype(np.uint8)
    label[core] = 1
    if enhancing:
        label[rim] = 4
    return label, masks[1:]
