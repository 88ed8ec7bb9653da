"""Write a cohort of phantom cases as files with a data list."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..files import make_folder, whole_file
from .recipe import PhantomRecipe


def write_cohort(phantom: PhantomRecipe, out: str | Path, cases: int | None = None, seed: int = 0) -> Path:
    """Write cases as NIfTI with a data list: a quarter for test, a quarter of the others for validation.

    The images are ``images/case_000_T1.nii.gz`` (int16) and so on, or ``images/case_000.nii.gz`` where the phantom has
    only one modality. The labels are ``labels/case_000.nii.gz`` (uint8). ``dataset.json`` is written last, in the form
    of the Medical Segmentation Decathlon, with paths relative to ``out``. For one phantom and seed, the files of case N
    have the same bytes in every cohort. Classes alternate, so that each list holds about as many cases of each class.

    Args:
        phantom: recipe of the cases.
        out: folder that is new, empty, or holds the same cohort; missing files of that cohort are written.
        cases: number of cases; by default, the phantom's own number.
        seed: seed of the cohort.

    Returns:
        ``out``.

    Raises:
        InputError: fewer than 3 cases, or ``out`` holds other files or a changed file of the cohort.
    """
    if cases is None:
        cases = phantom.default_cases
    if cases < 3:
        raise InputError(f"--cases {cases}: expected at least 3, one each for training, validation and test")
    out = Path(out)
    description = f"Synthetic phantom cohort, not for clinical use: {cases} cases of {phantom.description}, seed {seed}"
    _check_free(out, description)
    make_folder(out / "images")
    make_folder(out / "labels")

    several = len(phantom.all_modalities or phantom.modalities) > 1
    entries = []
    for index in tqdm(range(cases), desc="phantoms", disable=cases <= 20):
        class_name = phantom.classes[index % len(phantom.classes)] if phantom.classes else None
        case = phantom(np.random.default_rng([seed, index]), class_name)
        name = f"case_{index:03d}"
        images = []
        for modality, image in case.images.items():
            part = re.sub(r"[^\w.-]", "_", modality)
            images.append(f"images/{name}_{part}.nii.gz" if several else f"images/{name}.nii.gz")
            _save(image.astype(np.int16), case.affine, out / images[-1])
        label = f"labels/{name}.nii.gz"
        _save(case.label, case.affine, out / label)
        entry = {"case": name, "image": images if several else images[0], "label": label, **phantom.case_fields}
        entries.append(entry | {"class": class_name} if class_name else entry)

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
    with whole_file(out / "dataset.json", _replaces_none) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
    return out


def ensure_cohort(phantom: PhantomRecipe, out: str | Path) -> Path:
    """Write a cohort of the phantom's default size unless ``out`` holds a data list already; return ``out``."""
    return Path(out) if (Path(out) / "dataset.json").exists() else write_cohort(phantom, out)


def _check_free(out: Path, description: str) -> None:
    """Raise an ``InputError`` unless ``out`` is new, empty or the cohort of this description."""
    listing = out / "dataset.json"
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not listing.is_file() or json.dumps(description) not in listing.read_text(errors="replace"):
        raise InputError(f"--out {out}: it exists and is not this phantom cohort; give another --out or remove it")


def _save(volume: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with whole_file(path, _replaces_none) as partial:
        nib.save(image, partial)


def _replaces_none(path: Path) -> bool:
    """Return False, since a file of a cohort always has the same bytes: another file of its name is not replaced."""
    return False
