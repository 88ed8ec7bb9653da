"""Derive the names of modalities, scans and cases from file names; results are written under a case's name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath

from ..errors import InputError
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

# How file names and data lists call the MRI modalities; compared in lower case.
MODALITY_NAMES: Mapping[str, tuple[str, ...]] = {
    "T1": ("t1", "t1w", "t1n"),
    "T2": ("t2", "t2w"),
    "CET1": ("cet1", "t1c", "t1ce", "t1gd", "t1cw", "t1post", "ce"),
    "FLAIR": ("flair", "fla", "t2f"),
}
CONTAINERS = ("images", "imagestr", "imagests", "imagesval")  # folders of a data set that do not tell its cases apart
UNSAFE = '\\/:*?"<>|\N{REPLACEMENT CHARACTER}'  # the last one stands for bytes that are not text
LONGEST_NAME = 200  # bytes; a file name has at most 255, with the ending of a result and the mark of a partial file


def stem(path: str | Path) -> str:
    """Return a file's name without its image suffix."""
    name = Path(path).name
    for suffix in sorted(NIFTI_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def words(name: str) -> list[str]:
    """Return the words of a name between ``_``, ``-``, ``.`` and blanks, in lower case."""
    return re.split(r"[_\-. ]+", name.lower())


def modality_of(name: str, modalities: Sequence[str] = ()) -> tuple[str | None, str]:
    """Return the modality in a file's or channel's name, and the name without it.

    Besides the names of ``MODALITY_NAMES``, nnU-Net's ``_0000``, ``_0001``, ... count into ``modalities``.
    """
    parts = re.split(r"([_\-. ]+)", name)
    for i in range(len(parts) - 1, -1, -2):
        word = parts[i].lower()
        rest = "".join(parts[: max(i - 1, 0)] + parts[i + 1 :]).strip("_-. ")
        if re.fullmatch(r"\d{4}", word) and i == len(parts) - 1 and int(word) < len(modalities):
            return modalities[int(word)], rest
        for modality, names in MODALITY_NAMES.items():
            if word in names:
                return modality, rest
    return None, name


def scan_name(path: str | Path) -> str:
    """Return the name of a case whose scan is one file: the file's, without nnU-Net's number of the only channel.

    The number is left out after a number of the case alone: ``kid_010_0000`` is ``kid_010``, but ``word_0000`` stays.
    """
    name = stem(path)
    return name[: -len("_0000")] if re.search(r"_\d+_0000$", name) else name


def case_name(images: Sequence[str], modalities: Sequence[str] = ()) -> str:
    """Return the name of a case that a data list does not name, from its images' paths relative to the data set.

    It has the folders and the file, so that ``A/scan.nii.gz`` and ``B/scan.nii.gz`` differ: ``A_scan``, ``B_scan``.
    Folders such as ``imagesTr``, and of several images the modality, are left out.

    Args:
        images: paths relative to the data set, one or one for each modality.
        modalities: names for nnU-Net's numbers at the end of the files.
    """
    several = len(images) > 1
    last = modality_of(stem(images[0]), modalities)[1] if several else scan_name(images[0])
    folders = [part for part in PurePath(images[0]).parts[:-1] if part != ".." and part.lower() not in CONTAINERS]
    if several:
        folders = [part for part in folders if modality_of(part)[1]]
    return "_".join([*folders, last] if last else folders)


def own_name(images: Sequence[str], modalities: Sequence[str] = ()) -> str:
    """Return the name that a case has in lists of earlier versions: its file's, or else its folder's."""
    last = modality_of(stem(images[0]), modalities)[1] if len(images) > 1 else stem(images[0])
    return last or Path(images[0]).parent.name


def safe_name(name: object) -> str:
    """Return a case's name as the files of its results have it.

    Separators, control characters and whatever a file name cannot have on every system become ``_``, so that a result
    never leaves its folder: ``siteA/P1`` is ``siteA_P1``.

    Raises:
        InputError: the name is not text, is empty, begins with a dot, or is longer than ``LONGEST_NAME``.
    """
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise InputError(f"the case's name is {_short(name)}; expected a text")
    text = _text_bytes(name).decode("utf-8", "replace")
    safe = "".join("_" if letter in UNSAFE or not letter.isprintable() else letter for letter in text)
    size = len(safe.encode())
    if not safe.strip() or safe.startswith(".") or size > LONGEST_NAME:
        found = f"has {size} bytes, expected at most {LONGEST_NAME}"
        if size <= LONGEST_NAME:
            found = "begins with a dot" if safe.startswith(".") else "is empty"
        raise InputError(f"the case's name {_short(text)} {found}; rename the scan, or give it a 'case' in a data list")
    return os.fsdecode(safe.encode())


def listed_path(path: str) -> str:
    """Return a path of a data list, which is UTF-8, as this system's encoding of file names has it."""
    return os.fsdecode(_text_bytes(path))


def without_detours(path: Path) -> str:
    """Return a path without ``FOLDER/..``, unless the folder is a link: ``..`` then leads elsewhere."""
    kept = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if part == ".." and kept.name not in ("", "..") and not kept.is_symlink():
            kept = kept.parent
        else:
            kept /= part
    return str(kept)


def clashes(cases: Iterable[Mapping]) -> list[list[Mapping]]:
    """Return the groups of cases that have one name, or names that are one on systems that ignore capitals."""
    groups: dict[str, list[Mapping]] = {}
    for case in cases:
        groups.setdefault(unicodedata.normalize("NFC", case["case"]).casefold(), []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def with_distinct_names(cases: Sequence[dict], root: Path) -> list[dict]:
    """Return cases with names that results can carry; one without has an ``error``, as have all that share a name.

    Args:
        cases: each with ``case`` and ``image``, or with ``error``.
        root: the data set, to which the paths in messages are relative.
    """
    checked = []
    for case in cases:
        try:
            checked.append(case if "error" in case else {**case, "case": safe_name(case["case"])})
        except InputError as error:
            checked.append({"case": _where(case, root), "error": f"{_where(case, root)}: {error}"})
    errors = {}
    for group in clashes(case for case in checked if "error" not in case):
        names = ", ".join(dict.fromkeys(case["case"] for case in group))
        found = [_where(case, root) for case in group]
        listed = " and ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        once = len(set(found)) == 1
        fix = "list it once" if once else "rename the scans, or name each by 'case' in a data list"
        for one, where in zip(group, found):
            errors[id(one)] = {"case": where, "error": f"{listed}: cases of one name, {names}; {fix}"}
    return [errors.get(id(case), case) for case in checked]


def first_names(names: Sequence[str]) -> str:
    """Return the first three names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _where(case: Mapping, root: Path) -> str:
    """Return the path of a case's first image from the data set on."""
    image = case["image"] if isinstance(case["image"], str) else case["image"][0]
    return Path(os.path.relpath(image, root)).as_posix() if image != str(root) else str(root)


def _text_bytes(text: str) -> bytes:
    """Return the bytes that a text from JSON or from a file name stands for."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair of surrogates, which only JSON can have
        return text.encode("utf-8", "replace")


def _short(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
