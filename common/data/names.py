"""Derive the names of modalities, scans and cases from file names; a result file begins with the name of its case."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError
from .volumes import ITK_SUFFIXES, NIFTI_SUFFIXES

# Names of the MRI modalities in file names and data lists, in lower case.
MODALITY_NAMES: Mapping[str, tuple[str, ...]] = {
    "T1": ("t1", "t1w", "t1n"),
    "T2": ("t2", "t2w"),
    "CET1": ("cet1", "t1c", "t1ce", "t1gd", "t1cw", "t1post", "ce"),
    "FLAIR": ("flair", "fla", "t2f"),
}
CONTAINERS = ("images", "imagestr", "imagests", "imagesval")  # folders that are not part of a case's name
UNSAFE = '\\/:*?"<>|\N{REPLACEMENT CHARACTER}'  # the last one replaces bytes that are not text
LONGEST_NAME = 200  # bytes; leaves room for the suffixes of result and temporary files in the limit of 255


def stem(path: str | Path) -> str:
    """Return a file's name without its image suffix."""
    name = Path(path).name
    for suffix in sorted(NIFTI_SUFFIXES + ITK_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def words(name: str) -> list[str]:
    """Split a name at ``_``, ``-``, ``.`` and blanks, and return its words in lower case."""
    return re.split(r"[_\-. ]+", name.lower())


def modality_of(name: str, modalities: Sequence[str] = ()) -> tuple[str | None, str]:
    """Return the modality in a file's or channel's name, and the name without it.

    Recognised are the names in ``MODALITY_NAMES`` and nnU-Net's ``_0000``, ``_0001``, ..., the indices of
    ``modalities``.
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
    """Return the name of a case that consists of one file: the file's name without nnU-Net's channel number.

    The channel number is removed only after a number of the case: ``kid_010_0000`` becomes ``kid_010``, but
    ``word_0000`` stays.
    """
    name = stem(path)
    return name[: -len("_0000")] if re.search(r"_\d+_0000$", name) else name


def case_name(images: Sequence[str], modalities: Sequence[str] = ()) -> str:
    """Return the name of a case that has no ``case`` in the data list, from the paths of its images.

    The name joins folders and file, so that ``A/scan.nii.gz`` and ``B/scan.nii.gz`` become ``A_scan`` and ``B_scan``.
    Folders such as ``imagesTr`` are left out, and so is the modality if there are several images.

    Args:
        images: paths relative to the data set, one or one for each modality.
        modalities: channel names; nnU-Net's numbers at the end of file names are their indices.
    """
    several = len(images) > 1
    last = modality_of(stem(images[0]), modalities)[1] if several else scan_name(images[0])
    folders = [part for part in PurePath(images[0]).parts[:-1] if part != ".." and part.lower() not in CONTAINERS]
    if several:
        folders = [part for part in folders if modality_of(part)[1]]
    return "_".join([*folders, last] if last else folders)


def own_name(images: Sequence[str], modalities: Sequence[str] = ()) -> str:
    """Return the name of a case in a list of an earlier version: its file's name, or else its folder's."""
    last = modality_of(stem(images[0]), modalities)[1] if len(images) > 1 else stem(images[0])
    return last or Path(images[0]).parent.name


def safe_name(name: object) -> str:
    """Return a case's name for file names of its results.

    Characters that some system does not allow in a file name become ``_``. So do separators, which keeps results inside
    their folder: ``siteA/P1`` becomes ``siteA_P1``.

    Raises:
        InputError: the name is not a string, is empty, begins with a dot, or has more than ``LONGEST_NAME`` bytes.
    """
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        raise InputError(f"case name {_short(name)}: expected a string")
    text = _text_bytes(name).decode("utf-8", "replace")
    safe = "".join("_" if letter in UNSAFE or not letter.isprintable() else letter for letter in text)
    size = len(safe.encode())
    if not safe.strip() or safe.startswith(".") or size > LONGEST_NAME:
        found = f"has {size} bytes, expected at most {LONGEST_NAME}"
        if size <= LONGEST_NAME:
            found = "begins with a dot" if safe.startswith(".") else "is empty"
        raise InputError(f"case name {_short(text)} {found}; rename the scan, or set its 'case' in a data list")
    return os.fsdecode(safe.encode())


def listed_path(path: str) -> str:
    """Convert a path of a data list from UTF-8 to this system's encoding of file names."""
    return os.fsdecode(_text_bytes(path))


def without_detours(path: Path) -> str:
    """Remove ``FOLDER/..`` from a path, except where the folder is a link, because ``..`` then leads elsewhere."""
    kept = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        if part == ".." and kept.name not in ("", "..") and not kept.is_symlink():
            kept = kept.parent
        else:
            kept /= part
    return str(kept)


def clashes(cases: Iterable[Mapping]) -> list[list[Mapping]]:
    """Return the groups of cases with the same name, ignoring upper and lower case as some file systems do."""
    groups: dict[str, list[Mapping]] = {}
    for case in cases:
        groups.setdefault(unicodedata.normalize("NFC", case["case"]).casefold(), []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def with_distinct_names(cases: Sequence[dict], root: Path) -> list[dict]:
    """Make the names of cases safe for file names; a case without a valid and unique name gets an ``error`` instead.

    Args:
        cases: dicts with ``case`` and ``image``, or with ``error``.
        root: folder of the data set; the paths in messages are relative to it.
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
        fix = "rename the scans, or set 'case' of each in a data list" if len(set(found)) > 1 else "list it once"
        for one, where in zip(group, found):
            errors[id(one)] = {"case": where, "error": f"{listed}: several cases with the name {names}; {fix}"}
    return [errors.get(id(case), case) for case in checked]


def first_names(names: Sequence[str]) -> str:
    """Return the first three names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _where(case: Mapping, root: Path) -> str:
    """Return the path of a case's first image, relative to the data set."""
    image = case["image"] if isinstance(case["image"], str) else case["image"][0]
    return Path(os.path.relpath(image, root)).as_posix() if image != str(root) else str(root)


def _text_bytes(text: str) -> bytes:
    """Encode a string from JSON or from a file name."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, which occurs in JSON only
        return text.encode("utf-8", "replace")


def _short(value: object) -> str:
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def named_channels(path: Path, listing: Mapping[str, Any]) -> list[str]:
    """Return the channel names in a data set's ``dataset.json``, in order; empty if it has none.

    Args:
        path: ``dataset.json``, for messages.
        listing: content of the file. ``modality`` or ``channel_names`` is a name, a list of names, or an object that
            maps numbers to names or names to numbers.

    Raises:
        InputError: the names have another form, or two are equal.
    """
    key = "modality" if listing.get("modality") else "channel_names"
    named = listing.get(key) or []
    if isinstance(named, str):
        return [named]
    if isinstance(named, dict):
        if not any(str(key).isdecimal() for key in named) and all(type(number) is int for number in named.values()):
            named = {number: name for name, number in named.items()}
        if not all(str(number).isdecimal() for number in named):
            raise InputError(f"{path}: {key} has the keys {', '.join(named)}, expected numbers from 0")
        named = [named[number] for number in sorted(named, key=int)]
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise InputError(f'{path}: {key} is {named!r}; expected names, such as {{"0": "CT"}}')
    if twice := [name for name in named if named.count(name) > 1]:
        raise InputError(f"{path}: {key} names {named.count(twice[0])} channels {twice[0]!r}; give each its own name")
    return named
