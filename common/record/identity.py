"""Identify cases by the content of their files, and patients by their names in the data list."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..data.content import DAMAGED, gzip
from ..data.dicom_trees import files_of_series, series_in_path
from ..data.itk_data import scan_files
from ..files import sha256


def case_identities(cases: Sequence[Mapping]) -> list[dict[str, Any]]:
    """Return name, patient and SHA-256 of image and label of each case, read in four threads.

    A case with a ``class`` or a ``label_code`` keeps it, because a training learns from them too.
    """
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_identity, cases))


def _identity(case: Mapping) -> dict[str, Any]:
    patient = case.get("patient")
    return {
        "case": str(case.get("case", "")),
        "patient": None if patient is None else str(patient),
        "image": digest_of(case.get("image")),
        "label": digest_of(case.get("label")),
        **{key: case[key] for key in ("class", "label_code") if isinstance(case.get(key), (str, int, float))},
    }


def first_shared(cases: Sequence[Mapping], others: Sequence[Mapping]) -> str:
    """Return text on the first of some cases that has the image or the patient of another case, or ""."""
    images = {other["image"]: other["case"] for other in others if other.get("image")}
    patients = {other["patient"]: other["case"] for other in others if other.get("patient") is not None}
    for case in cases:
        if case.get("image") in images:
            return f"{case['case']}, with the same image as {images[case['image']]}"
        if case.get("patient") in patients:
            return f"{case['case']}, of the same patient {case['patient']} as {patients[case['patient']]}"
    return ""


def digest_of(files: Any) -> str | None:
    """Return the SHA-256 of a file, of several files in their order, or of a folder's files; None if one is missing.

    A header of MetaImage or NRRD counts together with the files that have its voxels.
    For a ``.gz`` file it is the SHA-256 of the content, so that it does not depend on the compression.
    """
    if isinstance(files, (list, tuple)):
        digests = [digest_of(file) for file in files]
        return None if None in digests or not digests else combined_digest([str(digest) for digest in digests])
    if not isinstance(files, (str, Path)):
        return None
    path = Path(files)
    if path.is_dir() or series_in_path(path) is not None:  # the files of a DICOM series may have any names
        return combined_digest(sorted(map(sha256, files_of_series(path))) or [""])
    files = scan_files(path)
    if not all(file.is_file() for file in files):
        return None
    return combined_digest([_content_digest(path), *map(sha256, files[1:])])


def _content_digest(path: Path) -> str:
    if path.name.lower().endswith(".gz"):
        digest = hashlib.sha256()
        try:
            with gzip.open(path) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest()
        except OSError:  # not compressed
            pass
        except DAMAGED:
            pass
    return sha256(path)


def combined_digest(digests: list[str]) -> str:
    """Return one digest for several: the SHA-256 of their list, or the only one."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
