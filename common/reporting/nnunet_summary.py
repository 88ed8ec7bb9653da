"""Read the evaluation of nnU-Net v2, ``summary.json``, as scores of cases."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json
from ..label_names import BACKGROUND, IGNORE, names_by_values

SUMMARY = "summary.json"
SCORES = ("Dice", "IoU")  # the others in the file are numbers of voxels
LEVELS_ABOVE = 3  # nnUNet_results/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION/fold_N/validation
NOT_SCORED = (BACKGROUND, IGNORE)


def read_summary(path: str | Path) -> list[dict[str, Any]]:
    """Return a row for each case with ``case`` and, by the label names, ``Dice NAME`` and ``IoU NAME``.

    The case is the name of the file. The names come from the ``dataset.json`` beside the file or up to three folders
    above, where nnU-Net puts it. nnU-Net has NaN for two empty masks; here they count 1, as in the scores of a bundle.

    Args:
        path: file that nnU-Net wrote, also of labels that are regions.

    Raises:
        InputError: the file has another form, a case occurs twice, or no ``dataset.json`` names a label.
    """
    path = Path(path)
    content = read_json(path)
    description, names = _description(path)
    ending = description.get("file_ending", ".nii.gz")
    rows = []
    try:
        for result in content["metric_per_case"]:
            case = re.split(r"[/\\]", result["prediction_file"])[-1].removesuffix(ending)
            by_label = {values: scores for key, scores in result["metrics"].items() if any(values := _values(key))}
            row: dict[str, Any] = {"case": case}
            for score in SCORES:
                row |= {f"{score} {names[values]}": _defined(scores[score]) for values, scores in by_label.items()}
            rows.append(row)
        (case, times) = Counter(row["case"] for row in rows).most_common(1)[0]
        if times > 1:
            raise ValueError(f"case {case} occurs {times} times")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        unnamed = isinstance(error, KeyError) and isinstance(error.args[0], tuple)
        if unnamed:
            label = ", ".join(map(str, sorted(error.args[0])))
            raise InputError(
                f"{path}: label {label} has no name in the dataset.json beside it or above; use that of the training"
            ) from error
        raise InputError(f"{path}: not a {SUMMARY} as nnU-Net v2 writes it ({error!r})") from error
    return rows


def _description(path: Path) -> tuple[dict[str, Any], dict[tuple[int, ...], str]]:
    """Return the nearest ``dataset.json``, and the names of its labels by their values in order."""
    folder = path.absolute().parent
    for place in (folder, *folder.parents[:LEVELS_ABOVE]):
        file = place / "dataset.json"
        if not file.is_file():
            continue
        content = read_json(file)
        labels = content.get("labels") if isinstance(content, dict) else None
        named = {values: name for values, name in names_by_values(labels).items() if name not in NOT_SCORED}
        if not named:
            raise InputError(f'{file}: labels is {labels!r}; expected names and values, such as {{"liver": 1}}')
        return content, named
    raise InputError(
        f"{path}: no dataset.json beside it or up to {LEVELS_ABOVE} folders above, which names the labels; copy that "
        "of the training beside it"
    )


def _values(key: str) -> tuple[int, ...]:
    """Return the label values in a key such as ``1`` or ``(1, 2)``, in order."""
    return tuple(sorted({int(number) for number in re.findall(r"\d+", key)}))


def _defined(score: float) -> float:
    return 1.0 if math.isnan(score) else float(score)
