"""Choose the series of each study of a DICOM export that become the cases of a run."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from .dicom_series import Series, best_of, find_series, fits

BEST = "best"
MODALITIES = {"CT": "CT", "PET": "PT", "PT": "PT", "US": "US"}  # names of channels to DICOM's
CONTRAST = {
    "gd",
    "gad",
    "ce",
    "km",
    "post",
    "contrast",
    "kontrast",
    "c+",
    "+c",
    "t1c",
    "t1ce",
    "cet1",
    "t1gd",
    "t1post",
}
NO_CONTRAST = {"pre", "native", "nativ", "without"}

logger = logging.getLogger(__name__)


def cases_of_export(
    root: str | Path, choice: str, modalities: Sequence[str] = (), skipped: Path | None = None
) -> list[dict]:
    """Return the cases of a DICOM export, a tree of patients, studies and series.

    The name of a case is made of ``PatientID``, ``AccessionNumber`` or else ``StudyDate``, and ``SeriesNumber``.
    Series that would get the same name also get the end of their UIDs.

    Args:
        root: see :func:`find_series`.
        choice: ``best``; the number of a series; a pattern of its description such as ``*thorax*``; or a choice for
            each modality, such as ``T1=4,CET1=*t1*gd*``. The choice applies to every study.
        modalities: channels of a case, in the network's order.
        skipped: folder to leave out, such as that of the results, resolved.

    Returns:
        dicts with ``case`` and ``image``; or with ``case`` and ``error`` for a study without a usable series.

    Raises:
        InputError: the choice is not valid or no study has such a series, or see :func:`find_series`.
    """
    studies = find_series(root, skipped)
    by_modality = parse_choice(choice, modalities)
    for text in by_modality.values() if isinstance(by_modality, Mapping) else [by_modality]:
        if text != BEST and not any(_matching(study, text) for study in studies):
            found = "; ".join(one.label for study in studies for one in study)
            raise InputError(f"--series {text}: no such series in {root}, which has {found}; give one of these numbers")
    cases: list[dict] = []
    for study in studies:
        if isinstance(by_modality, Mapping):
            cases.append(_case_of_modalities(study, by_modality))
        else:
            cases += _cases_of_study(study, by_modality, dicom_modality(modalities))
    repeated = {name for name, count in Counter(case["case"] for case in cases).items() if count > 1}
    for case in cases:
        uid = case.pop("uid")
        if case["case"] in repeated:
            case["case"] += f"_{uid[-8:]}"
    return cases


def dicom_modality(modalities: Sequence[str]) -> str | None:
    """Return the DICOM modality of a network's channels: CT, PT or US, else MR; None without channels."""
    found = [MODALITIES[name.upper()] for name in modalities if name.upper() in MODALITIES]
    return None if not modalities else next(iter(found), "MR")


def parse_choice(choice: str, modalities: Sequence[str]) -> str | dict[str, str]:
    """Return a choice of series as it is, or for each modality of a network that has several.

    Raises:
        InputError: the choice has other modalities than the network.
    """
    choice = choice.strip()
    if len(modalities) < 2:
        return choice
    if choice == BEST:
        return dict.fromkeys(modalities, BEST)
    pairs = [part.partition("=") for part in choice.split(",")]
    found = {name.strip(): text.strip() for name, equals, text in pairs if equals}
    if set(found) != set(modalities) or not all(found.values()):
        example = ",".join(f"{name}={number}" for number, name in enumerate(modalities, 2))
        raise InputError(
            f"--series {choice}: expected best, or a number or a pattern for each of {', '.join(modalities)}, such as "
            f'--series "{example}"'
        )
    return {name: found[name] for name in modalities}


def series_of_modalities(study: Sequence[Series], choice: Mapping[str, str]) -> dict[str, Series]:
    """Return the series of each modality in a study.

    With ``best``, the description tells the modality; of several series, it is the thinnest axial one.

    Raises:
        InputError: a modality has no usable series; or a pattern or a number has several of which none is axial.
    """
    found = {}
    for name, text in choice.items():
        if text == BEST:
            several = [one for one in study if fits(one, "MR") and modality_in(one.about.description) == name]
        else:
            several = [one for one in _matching(study, text) if fits(one, "MR")]
        one = several[0] if len(several) == 1 else best_of(several, None)
        if one is None:
            seen = "; ".join(f"{s.label}{f' ({s.reason})' if s.reason else ''}" for s in study)
            wanted = ",".join(f"{modality}=NUMBER" for modality in choice)
            raise InputError(f'no usable series for {name} among {seen}; choose with --series "{wanted}"')
        found[name] = one
    if len({one.path for one in found.values()}) < len(found):
        chosen = ", ".join(f"{name}: {one.label}" for name, one in found.items())
        raise InputError(f"one series for several modalities ({chosen}); choose a different one for each")
    return found


def modality_in(description: str) -> str | None:
    """Return the MRI modality that a description names: T1, CET1, T2 or FLAIR, or None."""
    text = description.lower()
    parts = set(re.split(r"[\s_\-./,;:()\[\]]+", text))
    contrast = bool(parts & CONTRAST) or re.search(r"\+\s*(c|gd|km)\b", text)
    if "flair" in text or "tirm" in text or "dark fluid" in text:
        return "FLAIR"
    if re.search(r"t2\s*\*|t2star|t2 star|swi", text):
        return None
    if ("t1" in text) == ("t2" in text):
        return None
    if "t2" in text:
        return "T2"
    return "CET1" if contrast and not parts & NO_CONTRAST else "T1"


def case_name_of(one: Series, with_series: bool = True) -> str:
    """Return the name of a case by patient, study and series."""
    about = one.about
    patient = about.patient or (one.path.parent if not about.accession else Path()).name
    parts = [patient, about.accession or about.date, (about.number or about.series[-8:]) if with_series else ""]
    return "_".join(filter(None, map(str.strip, parts))) or one.path.name


def _cases_of_study(study: Sequence[Series], choice: str, modality: str | None) -> list[dict]:
    if choice == BEST:
        best = best_of(study, modality)
        chosen = [] if best is None else [best]
    else:
        matching = _matching(study, choice)
        chosen = [one for one in matching if fits(one, modality)] or matching[:1]
    if not chosen:
        seen = "; ".join(f"{one.label} ({_why_not(one, modality)})" for one in study)
        what = f"no axial {modality or ''} volume" if choice == BEST else f"no series {choice}"
        error = f"{what} among {seen}; choose one with --series NUMBER"
        return [{"case": case_name_of(study[0], False), "error": error, "uid": study[0].about.study}]
    return [_case(one, modality) for one in chosen]


def _case(one: Series, modality: str | None) -> dict:
    name = case_name_of(one)
    if not fits(one, modality):
        reason = one.reason or _why_not(one, modality)
        return {"case": name, "error": f"{one.path}: series {one.label}: {reason}", "uid": one.about.series}
    _log(name, one)
    return {"case": name, "image": str(one.path), "uid": one.about.series}


def _case_of_modalities(study: Sequence[Series], choice: Mapping[str, str]) -> dict:
    name = case_name_of(study[0], with_series=False)
    try:
        found = series_of_modalities(study, choice)
    except InputError as error:
        return {"case": name, "error": str(error), "uid": study[0].about.study}
    for modality, one in found.items():
        _log(f"{name}, {modality}", one)
    return {"case": name, "image": [str(one.path) for one in found.values()], "uid": study[0].about.study}


def _log(name: str, one: Series) -> None:
    logger.info(
        "%s: series %s, %s, %d slices of %.3g mm, in %s",
        name, one.label, one.about.modality, one.shape[2], one.spacing[2], one.path,
    )  # fmt: skip


def _why_not(one: Series, modality: str | None) -> str:
    if one.reason:
        return one.reason
    if not fits(one, modality):
        return f"{one.about.modality or 'no modality'}, expected {modality}"
    return "axial" if one.axial else "not axial"


def _matching(study: Sequence[Series], choice: str) -> list[Series]:
    """Return the series with a number, or with a description that matches a pattern in upper or lower case."""
    if re.fullmatch(r"\d+", choice):
        return [one for one in study if re.fullmatch(r"\d+", one.about.number) and int(one.about.number) == int(choice)]
    return [one for one in study if fnmatch.fnmatchcase(one.about.description.lower(), choice.lower())]
