"""Synthetic labelled cohorts in the shape of a bundle's data, for demonstrations and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ..errors import InputError
from ..files import whole_file

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
# Each has the tumour's signal in two modalities, so that no two of them suffice.
HEAD_DISTRACTORS = ("inflammation", "lymphoid tissue", "venous plexus")

# Ellipsoids: tissue, centre and semi-axes along R, A, S in mm from the nasopharynx, each over the ones before it. One
# beside the midline stands for a pair.
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

# Signal in FLAIR, T1, CET1 and T2.
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
# The first two have the oedema's signal in all modalities but one; the last, and the oedema, the enhancing tumour's.
BRAIN_DISTRACTORS = ("cyst", "bright cortex", "haemorrhage")

# As for the head, from the middle of the brain.
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
WITHOUT_ENHANCEMENT = 0.25  # of the cases

NOISE = 26.0  # standard deviation in each of the real and imaginary channel
TEXTURE = 0.04  # standard deviation relative to the signal
BUMP = 0.08  # amplitude of each wave on a lesion's surface, relative to its radius


@dataclass
class Phantom:
    """One labelled case.

    Args:
        images: float32 ``(x, y, z)`` per modality.
        label: uint8 on the same grid.
        affine: 4x4, from voxels to RAS+ millimetres.
    """

    images: dict[str, np.ndarray]
    label: np.ndarray
    affine: np.ndarray


@dataclass(kw_only=True)
class PhantomRecipe:
    """What the recipes of a case have in common.

    Args:
        modalities: those to return, in order; each is the same as in the full set.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.

    Raises:
        InputError: an unknown or repeated modality, or too small a field of view.
    """

    modalities: Sequence[str]
    size: Sequence[int]
    spacing: Sequence[float]

    all_modalities: ClassVar[tuple[str, ...]]
    labels: ClassVar[Mapping[int, str]]
    case_fields: ClassVar[Mapping[str, str]] = {}  # what a data list says of each case besides its files
    smallest_field_of_view: ClassVar[float]  # mm

    def __post_init__(self) -> None:
        self.modalities = tuple(self.modalities)
        self.size = tuple(self.size)
        self.spacing = tuple(self.spacing)
        known = all(m in self.all_modalities for m in self.modalities)
        if not self.modalities or not known or len(set(self.modalities)) < len(self.modalities):
            expected = ", ".join(self.all_modalities)
            raise InputError(f"modalities {list(self.modalities)}: expected some of {expected}, each once")
        extent = [n * s for n, s in zip(self.size, self.spacing)]
        if len(extent) != 3 or min(extent) < self.smallest_field_of_view:
            raise InputError(
                f"size {self.size} with spacing {self.spacing}: expected three each and at least "
                f"{self.smallest_field_of_view:g} mm along every axis"
            )

    def __call__(self, rng: np.random.Generator) -> Phantom:
        """One case; all of its randomness comes from ``rng``."""
        raise NotImplementedError


@dataclass(kw_only=True)
class HeadPhantom(PhantomRecipe):
    """MRI of a head with one tumour (label 1) in the nasopharynx, as T1, T2 and contrast-enhanced T1.

    Around the tumour lie an inflammation, lymphoid tissue and a venous plexus, irregular and about as large. The signal
    of each equals the tumour's in two modalities and differs in the third: only all three together tell which is the
    tumour. Anatomy, positions, gain, bias fields and noise differ from case to case.

    Args:
        modalities: those to return, in order; each is the same as in the full set.
        size: voxels along x, y, z; the number of slices varies by up to 2 either way.
        spacing: mm along x, y, z; varies by up to 10 % in plane and 15 % between slices.

    Raises:
        InputError: an unknown or repeated modality, or a field of view below 64 mm.
    """

    modalities: Sequence[str] = ("T1", "T2", "CET1")
    size: Sequence[int] = (84, 96, 20)
    spacing: Sequence[float] = (2.0, 2.0, 4.5)

    all_modalities = ("T1", "T2", "CET1")
    labels: ClassVar[Mapping[int, str]] = {1: "tumour"}
    smallest_field_of_view = 64.0

    def __call__(self, rng: np.random.Generator) -> Phantom:
        size = np.array([*self.size[:2], self.size[2] + rng.integers(-2, 3)])
        spacing = np.array(self.spacing) * (1 + rng.uniform(-1, 1, 2) * (0.10, 0.15))[[0, 0, 1]]
        first = [*rng.uniform(-3, 3, 2), 0] - spacing * (size - 1) / 2
        points, affine = _grid(first, spacing, size)

        tissues = tuple(HEAD_SIGNALS)
        tissue = _anatomy(rng, points, HEAD_ANATOMY, tissues)
        tumour, distractors = _lesions(rng, points)
        for name, mask in [*zip(HEAD_DISTRACTORS, distractors), ("tumour", tumour)]:
            tissue[mask] = tissues.index(name)
        images = {}
        for modality, signal in zip(self.all_modalities, np.array(list(HEAD_SIGNALS.values()), float).T):
            images[modality] = _acquire(rng, signal[tissue], points, spacing)
        return Phantom({m: images[m] for m in self.modalities}, tumour.astype(np.uint8), affine)


@dataclass(kw_only=True)
class BrainPhantom(PhantomRecipe):
    """Skull-stripped MRI of a brain with one glioma, as FLAIR, T1, contrast-enhanced T1 and T2; 0 outside the brain.

    The label has BraTS's code: 2 oedema, in it the core: 1 necrosis within 4, an enhancing rim. A quarter of the cases
    have no enhancing rim. The rim has the oedema's signal but in CET1; a cyst and bright cortex elsewhere have it but
    in FLAIR and in T2; a haemorrhage has the rim's but in T1; vessels enhance too, and the ventricles are as bright on
    T2. So each modality is needed. Anatomy, positions, gain, bias fields and noise differ from case to case.

    Args:
        modalities: those to return, in order; each is the same as in the full set.
        size: voxels along x, y, z.
        spacing: mm along x, y, z.

    Raises:
        InputError: an unknown or repeated modality, or a field of view below 128 mm.
    """

    modalities: Sequence[str] = ("FLAIR", "T1", "CET1", "T2")
    size: Sequence[int] = (64, 72, 56)
    spacing: Sequence[float] = (2.5, 2.5, 2.5)

    all_modalities = ("FLAIR", "T1", "CET1", "T2")
    labels: ClassVar[Mapping[int, str]] = {1: "necrosis and non-enhancing tumour", 2: "oedema", 4: "enhancing tumour"}
    case_fields: ClassVar[Mapping[str, str]] = {"label_code": "brats"}
    smallest_field_of_view = 128.0

    def __call__(self, rng: np.random.Generator) -> Phantom:
        spacing = np.array(self.spacing, float)
        first = rng.uniform(-3, 3, 3) - spacing * (np.array(self.size) - 1) / 2
        points, affine = _grid(first, spacing, self.size)

        tissues = tuple(BRAIN_SIGNALS)
        tissue = _anatomy(rng, points, BRAIN_ANATOMY, tissues)
        brain = tissue > 0
        label, distractors = _glioma(rng, points, spacing, brain)
        for name, mask in zip(BRAIN_DISTRACTORS, distractors):
            tissue[mask & brain] = tissues.index(name)
        for value, name in ((2, "oedema"), (1, "necrosis"), (4, "enhancing tumour")):
            tissue[label == value] = tissues.index(name)
        images = {}
        for modality, signal in zip(self.all_modalities, np.array(list(BRAIN_SIGNALS.values()), float).T):
            acquired = _acquire(rng, signal[tissue], points, spacing)
            images[modality] = np.where(brain, np.maximum(acquired, 1), 0).astype(np.float32)
        return Phantom({m: images[m] for m in self.modalities}, label, affine)


def write_cohort(phantom: PhantomRecipe, out: str | Path, cases: int = 12, seed: int = 0) -> Path:
    """Write cases as NIfTI with a data list: a quarter for test, a quarter of the others for validation.

    The files are ``images/case_000_T1.nii.gz`` (int16) and so on, ``labels/case_000.nii.gz`` (uint8) and, last,
    ``dataset.json`` in the form of the Medical Segmentation Decathlon, paths relative to ``out``. The files of case
    N are the same, byte for byte, in every cohort of a phantom and a seed.

    Args:
        phantom: the recipe of a case.
        out: folder; must be new, empty, or hold this very cohort.
        cases: number of cases.
        seed: of the cohort.

    Returns:
        ``out``.

    Raises:
        InputError: fewer than 3 cases, or ``out`` holds something else.
    """
    if cases < 3:
        raise InputError(f"--cases {cases}: expected at least 3, one each for training, validation and test")
    out = Path(out)
    description = f"Synthetic phantom cohort, not for clinical use: {cases} cases of {phantom}, seed {seed}"
    _check_free(out, description)
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "labels").mkdir(exist_ok=True)

    entries = []
    for index in tqdm(range(cases), desc="phantoms", disable=cases <= 20):
        case = phantom(np.random.default_rng([seed, index]))
        name = f"case_{index:03d}"
        images = {f"images/{name}_{modality}.nii.gz": image for modality, image in case.images.items()}
        for path, image in images.items():
            _save(image.astype(np.int16), case.affine, out / path)
        label = f"labels/{name}.nii.gz"
        _save(case.label, case.affine, out / label)
        entries.append({"image": list(images), "label": label, **phantom.case_fields})

    tests = max(1, round(cases / 4))
    validations = max(1, round((cases - tests) / 4))
    trainings = cases - tests - validations
    content = {
        "name": type(phantom).__name__,
        "description": description,
        "modality": {str(i): modality for i, modality in enumerate(phantom.modalities)},
        "labels": {"0": "background", **{str(value): name for value, name in phantom.labels.items()}},
        "numTraining": trainings,
        "numTest": tests,
        "training": entries[:trainings],
        "validation": entries[trainings : trainings + validations],
        "test": entries[trainings + validations :],
    }
    with whole_file(out / "dataset.json") as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    return out


def ensure_cohort(phantom: PhantomRecipe, out: str | Path) -> Path:
    """``out``, where a cohort of the default size is written first unless there is a data list already."""
    return Path(out) if (Path(out) / "dataset.json").exists() else write_cohort(phantom, out)


def _grid(first: np.ndarray, spacing: np.ndarray, size: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points ``(3, x, y, z)`` in mm and the affine of a grid that begins at ``first``."""
    axes = [start + step * np.arange(n) for start, step, n in zip(first, spacing, size)]
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = first
    return np.stack(np.meshgrid(*axes, indexing="ij")), affine


def _anatomy(rng: np.random.Generator, points: np.ndarray, ellipsoids: Sequence, tissues: Sequence[str]) -> np.ndarray:
    """Index into ``tissues`` of each point; ``points`` is ``(3, x, y, z)`` in mm."""
    tissue = np.zeros(points.shape[1:], dtype=np.intp)
    points = points / rng.uniform(0.96, 1.04, 3)[:, None, None, None]
    for name, centre, radii in ellipsoids:
        shift, stretch = rng.uniform(-1, 1, 3), rng.uniform(0.96, 1.04, 3)
        p = np.stack([np.abs(points[0]), *points[1:]]) if centre[0] else points
        tissue[_ellipsoid(p, np.add(centre, shift), np.multiply(radii, stretch)) <= 1] = tissues.index(name)
    return tissue


def _lesions(rng: np.random.Generator, points: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Masks of the tumour and of one distractor of each kind; no two overlap."""
    diameter = rng.uniform(25, 40)
    placed = [(rng.uniform((-20, -8, -8), (20, 14, 8)), diameter)]
    masks = [_irregular(rng, points, *placed[0])]
    for _ in HEAD_DISTRACTORS:
        _add_apart(rng, points, placed, masks, diameter * rng.uniform(0.9, 1.2), ((-36, -22, -26), (36, 38, 20)))
    return masks[0], masks[1:]


def _glioma(
    rng: np.random.Generator, points: np.ndarray, spacing: np.ndarray, brain: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The label in BraTS's code, and masks of one distractor of each kind; none overlaps the tumour or another."""
    diameter = rng.uniform(44, 62)
    side = rng.choice((-1, 1))
    centre = rng.uniform((18, -36, -2), (32, 40, 24)) * (side, 1, 1)
    placed = [(centre, diameter)]
    masks = [_irregular(rng, points, centre, diameter) & brain]
    for _ in BRAIN_DISTRACTORS:
        _add_apart(rng, points, placed, masks, rng.uniform(28, 40), ((-46, -56, -14), (46, 58, 44)))

    core = _irregular(rng, points, centre + rng.uniform(-3, 3, 3), diameter * rng.uniform(0.6, 0.72))
    core &= ndimage.distance_transform_edt(masks[0], sampling=spacing) > max(3, spacing.max())
    enhancing = rng.random() >= WITHOUT_ENHANCEMENT
    rim = core & (ndimage.distance_transform_edt(core, sampling=spacing) <= rng.uniform(5, 8))
    label = np.where(masks[0], 2, 0).astype(np.uint8)
    label[core] = 1
    if enhancing:
        label[rim] = 4
    return label, masks[1:]


def _add_apart(
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
            mask = _irregular(rng, points, centre, diameter)
            if not np.any(masks, axis=0)[mask].any():
                break
        diameter *= 0.997  # a crowded head has room for a smaller one
    placed.append((centre, diameter))
    masks.append(mask)


def _irregular(rng: np.random.Generator, points: np.ndarray, centre: np.ndarray, diameter: float) -> np.ndarray:
    """Points in a random ellipsoid of this equivalent diameter (mm) whose surface has smooth bumps."""
    radii = np.exp(rng.normal(0, 0.12, 3))
    radii *= diameter / 2 / radii.prod() ** (1 / 3)
    waves, phases = rng.normal(0, 2, (4, 3)), rng.uniform(0, 2 * np.pi, 4)
    inside = _ellipsoid(points, centre, radii) <= 1 + BUMP * len(waves)
    offset = points[:, inside] - centre[:, None]
    direction = offset / np.maximum(np.linalg.norm(offset, axis=0), 1e-6)
    bumps = BUMP * np.sin(waves @ direction + phases[:, None]).sum(0)
    inside[inside] = np.linalg.norm(offset / radii[:, None], axis=0) <= 1 + bumps
    return inside


def _ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance from the centre, 1 on the surface."""
    return np.linalg.norm((points - centre[:, None, None, None]) / radii[:, None, None, None], axis=0)


def _acquire(rng: np.random.Generator, signal: np.ndarray, points: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The magnitude image: tissue texture, receive gain and bias field, Rician noise."""
    texture = ndimage.gaussian_filter(rng.normal(size=signal.shape), 4 / spacing)
    texture *= TEXTURE / texture.std()
    p = points / 90
    bias = np.tensordot(rng.uniform(-0.08, 0.08, 3), p, 1) + np.tensordot(rng.uniform(-0.08, 0.08, 3), p**2, 1)
    signal = rng.uniform(0.85, 1.15) * signal * (1 + texture) * np.exp(bias)
    noise = rng.normal(0, NOISE, (2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1]).round().astype(np.float32)


def _check_free(out: Path, description: str) -> None:
    """Raise unless ``out`` is new, empty or the cohort of this description."""
    listing = out / "dataset.json"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not listing.is_file() or json.dumps(description) not in listing.read_text(errors="replace"):
        raise InputError(f"--out {out}: exists and is not this phantom cohort; give another --out or remove it")


def _save(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
