"""Collect the results of folders and write them as one page."""

from __future__ import annotations

import base64
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..figures import (
    bland_altman_figure,
    distribution_figure,
    label_dice,
    names_of_values,
    paired_figure,
    read_mask,
    read_on_grid,
    roc_figure,
)
from ..files import check_replaceable, whole_file
from ..reporting import (
    compare_paired,
    deviation,
    mean,
    missing_results,
    read_case_scores,
    read_classes,
    read_classification,
    scores_file,
)
from .cases import ENDING, cases_of_masks, masks_in
from .slices import case_slices

BUDGET = 7_000_000  # bytes of all images of a page
TRUTH = "ground truth"
MARK = "<!-- report of python -m common -->"


def write_report(runs: Mapping[str, str | Path], out: str | Path, dataset_dir: str | Path | None = None) -> Path:
    """Write one HTML page that needs no other file and makes no request.

    Args:
        runs: name and folder of each evaluation or inference. A folder may have both scores and masks.
        out: HTML file; only a report is replaced.
        dataset_dir: folder of the scans of the masks; a ``dataset.json`` in it also names their ground truth.

    Raises:
        InputError: jinja2 or matplotlib is missing, a folder has no results, or ``out`` is another file.
    """
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"report: {package} is not installed; pip install jinja2 matplotlib")
    import jinja2  # here, because it is optional

    out = Path(out)
    if out.suffix.lower() != ".html":
        raise InputError(f"{out}: expected the name of a page to write, which ends with .html")
    check_replaceable(out, _is_own)
    scores: dict[str, list[dict[str, Any]]] = {}
    classes: dict[str, list[dict[str, Any]]] = {}
    masks: dict[str, dict[str, Path]] = {}
    for name, folder in ((name, Path(folder)) for name, folder in runs.items()):
        if scores_file(folder).is_file():
            scores[name] = read_case_scores(folder)
        if (folder / "classes.csv").exists():
            classes[name] = read_classes(folder / "classes.csv")
        if found := masks_in(folder):
            masks[name] = found
        if name not in {*scores, *classes, *masks}:
            raise missing_results(folder, "scores.csv", "classes.csv", f"*{ENDING}")
    if masks and dataset_dir is None:
        raise InputError(f"{runs[next(iter(masks))]}: has masks; add --dataset_dir, the folder with their scans")
    cases = _cases(masks, dataset_dir)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html").render(
        runs=list(runs),
        tables=[_table(name, rows) for name, rows in scores.items()],
        class_tables=[(name, rows, read_classification(runs[name])) for name, rows in classes.items()],
        plots=_plots(scores, classes),
        paired=compare_paired(scores, common_cases=True) if len(scores) > 1 else "",
        cases=cases,
    )
    with whole_file(out, _is_own) as partial:
        partial.write_text(f"{MARK}\n{page}", "utf-8", "replace")
    return out


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK.encode()


def _table(run: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the scores of a run, the case with the lowest first score first."""
    names = [name for name in (rows[0] if rows else {}) if name != "case"]
    defined = {name: [row[name] for row in rows if math.isfinite(row[name])] for name in names}

    def badness(row: Mapping[str, Any]) -> float:
        return math.inf if not names or math.isnan(row[names[0]]) else row[names[0]]

    return {
        "run": run,
        "names": names,
        "rows": [(row["case"], [row[name] for name in names]) for row in sorted(rows, key=badness)],
        "summary": [
            (name, len(v), mean(v), deviation(v), *(np.quantile(v, (0, 0.5, 1)) if v else (math.nan,) * 3))
            for name, v in defined.items()
        ],
    }


def _plots(scores: Mapping[str, Sequence[Mapping]], classes: Mapping[str, Sequence[Mapping]]) -> list[tuple[str, str]]:
    """Return title and data URI of each plot that the results allow."""
    figures: list[tuple[str, Any]] = []
    if scores:
        figures.append(("Distribution of the scores", distribution_figure(scores)))
    if len(scores) > 1:
        figures.append(("Paired differences", paired_figure(scores)))
    for title, draw, results in (
        ("Volumes (Bland-Altman)", bland_altman_figure, scores),
        ("ROC", roc_figure, classes),
    ):
        for run, rows in results.items():
            try:
                figures.append((f"{title}: {run}", draw(rows)))
            except InputError:  # no volumes measured, or one class alone; the page has the other plots
                continue
    return [(title, _svg(figure)) for title, figure in figures if figure is not None]


def _svg(figure: Any) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def _cases(masks: Mapping[str, Mapping[str, Path]], dataset_dir: str | Path | None) -> list[dict[str, Any]]:
    """Return the cases with masks as values for the template."""
    if not masks or dataset_dir is None:
        return []
    firsts: dict[str, Path] = {}
    for found in masks.values():
        firsts = {**found, **firsts}
    cases = []
    for case in cases_of_masks(firsts, dataset_dir):
        files = {run: found[case["case"]] for run, found in masks.items() if case["case"] in found}
        cases.append(_case(case, files, Path(dataset_dir), BUDGET // len(firsts)))
    return sorted(cases, key=lambda case: min((min(d) for d in case["dice"] if d), default=2.0))  # the worst first


def _case(
    case: Mapping[str, Any],
    files: Mapping[str, Path],
    root: Path,
    budget: int,
) -> dict[str, Any]:
    """Return a case as values for the template."""
    first = next(iter(files.values()))
    known = names_of_values(first, root / "dataset.json")
    reference, affine = read_mask(first)
    images = [case["image"]] if isinstance(case["image"], str) else case["image"]
    rows = []
    for path in map(Path, images):
        volume = read_on_grid(path, first, reference, affine, channels=True)
        channels = [volume] if volume.ndim == 3 else [volume[..., c] for c in range(volume.shape[3])]
        rows += [(path.name, channel) for channel in channels]
    if len(case["modalities"]) == len(rows):
        rows = [(name, volume) for name, (_, volume) in zip(case["modalities"], rows)]
    labelled = {TRUTH: Path(case["label"])} if "label" in case else {}
    layers = {
        name: read_on_grid(path, first, reference, affine, labels=True)
        for name, path in (labelled | dict(files)).items()
    }
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    values = sorted({int(value) for layer in layers.values() for value in np.unique(layer) if value})
    volumes = [
        (known.get(value, f"label {value}"), [float((layer == value).sum()) * ml for layer in layers.values()])
        for value in values
    ]
    dice = [label_dice(layers[run], layers[TRUTH], values) for run in files] if TRUTH in layers else []
    return {
        "name": str(case["case"]),
        "layers": list(layers),
        "volumes": volumes,
        "dice": dice,
        **case_slices(rows, layers, spacing.tolist(), budget),
    }
