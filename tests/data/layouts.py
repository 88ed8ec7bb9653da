"""Write folders in the layouts of public data, and read the lists that are made of them."""

from __future__ import annotations

from pathlib import Path

from common.data import load_cases
from common.data.datalist import write_datalist

NAMES = ("FLAIR", "T1", "CET1", "T2")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def brats(folder: Path, case: str, ending: str = ".nii.gz", mark: str = "_") -> None:
    """Write a case in the form of 2017 to 2021, or in that of 2023, which has other words."""
    words = ("flair", "t1", "t1ce", "t2", "seg") if mark == "_" else ("t2f", "t1n", "t1c", "t2w", "seg")
    touch(folder / case, *(f"{Path(case).name}{mark}{word}{ending}" for word in words))


def listed(
    root: Path, layout: str, folds: int = 3, modalities: tuple[str, ...] = NAMES, **options: int
) -> dict[str, dict]:
    """Return the cases of a list by name, as a training reads them, with their section."""
    out = root.parent / "list" / "dataset.json"
    out.parent.mkdir(exist_ok=True)
    sections = write_datalist(layout, root, out, modalities, folds, **options)
    cases = {}
    for section in [name for name, listed_ in sections.items() if listed_]:
        for case in load_cases(out.parent, section, modalities):
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            case["files"] = [Path(p).name for p in [*images, case["label"]]]
            assert case["case"] not in cases
            cases[case["case"]] = {**case, "section": section}
    return cases
