"""Command line: ``python -m common VERB ...``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import fire
from monai.bundle import ConfigParser

from .data.datalist import write_datalist
from .data.intensity import intensity_file, intensity_of
from .data.phantoms import write_cohort
from .errors import InputError
from .reporting import (
    compare,
    draw_bland_altman,
    draw_outlines,
    draw_roc,
    read_class_scores,
    read_classes,
    read_scores,
)


def phantoms(bundle: str, out: str, cases: int | None = None, seed: int = 0) -> None:
    """Write a cohort of synthetic labelled volumes shaped like a bundle's data, with its data list.

    Args:
        bundle: a name under bundles/, or a bundle's folder; the recipe is "phantom" in its configs/demo.json.
        out: folder to write.
        cases: number of cases; the recipe's own number unless given.
        seed: of the cohort; case N is the same in every cohort of a seed.
    """
    folder = Path(bundle) if Path(bundle).is_dir() else Path(__file__).parents[1] / "bundles" / bundle
    recipe = folder / "configs" / "demo.json"
    if not recipe.exists():
        known = sorted(p.name for p in (Path(__file__).parents[1] / "bundles").glob("*"))
        raise InputError(f"no bundle {bundle} with a configs/demo.json; expected a folder or one of {', '.join(known)}")
    phantom = ConfigParser(json.loads(recipe.read_text())["phantom"]).get_parsed_content()
    cases = phantom.default_cases if cases is None else cases
    path = write_cohort(phantom, out, cases=cases, seed=seed)
    print(f"{cases} cases in {path}")


def datalist(
    layout: str,
    root: str,
    out: str,
    modalities: str | tuple[str, ...] = (),
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    classes: str | None = None,
) -> None:
    """Write the data list of a folder of labelled cases: training, validation and test cases of one fold.

    Args:
        layout: nnunet (also the Medical Segmentation Decathlon's), folders (a folder per case), or, of gliomas,
            brats2015, brats2018, brats2020, brats2023, msd_task01, of livers, lits, msd_task03, of lungs, mosmed,
            covid_ct_seg: what a label's values mean follows from it.
        root: the folder.
        out: the list to write, DIR/dataset.json; DIR is then the bundles' dataset_dir.
        modalities: names of the channels in the network's order, such as T1,T2,CET1.
        folds: number of cross-validation folds, by patient where names or classes tell the patient.
        fold: the fold to test on.
        seed: of the assignment to folds.
        classes: CSV file with the columns case and class, and patient if known; folds then share every class.
    """
    names = tuple(modalities.split(",")) if isinstance(modalities, str) else tuple(modalities)
    lists = write_datalist(layout, root, out, names, folds, fold, seed, classes)
    print(f"{out}: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items()))


def intensity(dataset_dir: str, fold: int | None = None) -> None:
    """Print the statistics of the foreground's intensities over the training cases of a data list.

    They are computed where their file does not stand beside the list yet; so does a training that needs them.

    Args:
        dataset_dir: folder of the data list.
        fold: cross-validation fold, as for a training; without it the lists as they stand.
    """
    found = intensity_of(dataset_dir, fold)
    print(", ".join(f"{key} {found[key]:.6g}" for key in ("low", "high", "mean", "sd")))
    print(f"{intensity_file(dataset_dir, fold)}: of {found['cases']} training cases")


def picture(
    *images: str,
    prediction: str,
    out: str,
    truth: str | None = None,
    heat: str | None = None,
    result: str | None = None,
) -> None:
    """Draw slices of images with the outline of a prediction, and of the truth where given.

    Args:
        images: files, a row each; a 4-D file gives a row for each channel.
        prediction: label map on the same grid.
        out: PNG to write.
        truth: label map on the same grid.
        heat: map of 0 to 1 on the same grid, such as where the network sees the class; a row of its own.
        result: CASE_class.json, whose class and probabilities stand below.
    """
    print(draw_outlines(images, prediction, out, truth, heat=heat, result=result))


def scores(*runs: str, folds: bool = False) -> None:
    """Print the mean scores of evaluations side by side, with their scores of the class if they have any.

    Args:
        runs: folders with a scores.csv, and a class_scores.csv or none, as NAME=FOLDER or FOLDER.
        folds: the runs are folds; two more lines, mean and standard deviation over them. Stands after the runs.
    """
    if not isinstance(folds, bool):
        raise InputError(f"--folds {folds}: the option stands after the runs")
    named = dict(run.rpartition("=")[::2] if "=" in run else (run, run) for run in runs)
    of_classes = {name: Path(folder) / "class_scores.csv" for name, folder in named.items()}
    print(
        compare(
            {name: read_scores(Path(folder) / "scores.csv") for name, folder in named.items()},
            {name: read_class_scores(path) for name, path in of_classes.items() if path.exists()},
            folds,
        )
    )


def plots(out: str, classes: str | None = None, scores: str | None = None) -> None:
    """Draw the ROC curve of each class, and how predicted and true volumes agree (Bland-Altman).

    Args:
        out: folder for roc.png and bland_altman.png.
        classes: classes.csv of an evaluation, or of several folds one below the other, for the first.
        scores: scores.csv of an evaluation that measures volumes, for the second.
    """
    if classes is None and scores is None:
        raise InputError("nothing to draw; give --classes, --scores or both")
    if classes is not None:
        print(draw_roc(read_classes(classes), Path(out) / "roc.png"))
    if scores is not None:
        print(draw_bland_altman(read_scores(scores), Path(out) / "bland_altman.png"))


def main() -> None:
    os.environ.setdefault("PAGER", "cat")  # fire shows its help in a pager
    try:
        fire.Fire(
            {
                "phantoms": phantoms,
                "datalist": datalist,
                "intensity": intensity,
                "picture": picture,
                "scores": scores,
                "plots": plots,
            },
            name="python -m common",
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
