"""Show the series of a study as a table, with the one that a network would use."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from .dicom_choice import BEST, dicom_modality, parse_choice, series_of_modalities
from .dicom_series import Series, best_of, fits

HEADINGS = ("number", "description", "modality", "slices", "spacing", "verdict", "reason")
LONGEST = 40  # characters of a description


def series_table(study: Sequence[Series], modalities: Sequence[str] = ()) -> str:
    """Return a table of a study: a line about patient and study, a line for each series, and what a network would use.

    Args:
        study: series of one study.
        modalities: channels of the network; without them, the best CT and the best MR are marked.
    """
    about = study[0].about
    title = f"patient {about.patient or 'unknown'}, study {about.date or 'without a date'}"
    title += f", accession number {about.accession}" if about.accession else ""
    modality, notes = dicom_modality(modalities), []
    if len(modalities) > 1:
        marked, note = _of_modalities(study, modalities)
        notes.append(note)
    else:
        marked = {
            one.path: BEST for kind in ([modality] if modality else ["CT", "MR"]) if (one := best_of(study, kind))
        }
    rows = [HEADINGS, *(_row(one, modality, marked.get(one.path)) for one in study)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS) - 1)]
    lines = ["  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]
    return "\n".join([title, *(f"  {line}" for line in [*lines, *notes])])


def _of_modalities(study: Sequence[Series], modalities: Sequence[str]) -> tuple[dict, str]:
    """Return the modality of each chosen series by its path, and the option that chooses the same."""
    try:
        choice = parse_choice(BEST, modalities)
        assert isinstance(choice, dict)
        found = series_of_modalities(study, choice)
    except InputError as error:
        return {}, str(error)
    option = ",".join(f"{name}={one.about.number}" for name, one in found.items())
    return {one.path: name for name, one in found.items()}, f'best is --series "{option}", by the descriptions'


def _row(one: Series, modality: str | None, mark: str | None) -> tuple[str, ...]:
    """Return the cells of a series; a usable one has its place as the reason."""
    reason = one.reason or ("" if fits(one, modality) else f"{one.about.modality or 'no modality'}, not {modality}")
    spacing = " x ".join(f"{step:.3g}" for step in one.spacing)
    description = one.about.description
    return (
        one.about.number or "-",
        description if len(description) <= LONGEST else f"{description[: LONGEST - 3]}...",
        one.about.modality or "-",
        str(one.shape[2] if one.shape else one.files),
        spacing or "-",
        "refused" if reason else mark or "usable",
        reason or f"{'axial' if one.axial else 'not axial'}, {one.path}",
    )
