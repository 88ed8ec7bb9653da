"""Command line: ``python -m common VERB ...``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import fire
from monai.bundle import ConfigParser

from .data.datalist import write_datalist
from .data.phantoms import write_cohort
from .errors import InputError
from .reporting import compare, draw_outlines, read_scores


def phantoms(bundle: str, out: str, cases: int = 12, seed: int = 0) -> None:
    """Write a cohort of synthetic labelled volumes shaped like a bundle's data, with its data list.

    Args:
        bundle: a name under bundles/, or a bundle's folder; the recipe is "phantom" in its configs/demo.json.
        out: folder to write.
        cases: number of cases.
        seed: of the cohort; case N is the same in every cohort of a seed.
    """
    folder = Path(bundle) if Path(bundle).is_dir() else Path(__file__).parents[1] / "bundles" / bundle
    recipe = folder / "configs" / "demo.json"
    if not recipe.exists():
        known = sorted(p.name for p in (Path(__file__).parents[1] / "bundles").glob("*"))
        raise InputError(f"no bundle {bundle} with a configs/demo.json; expected a folder or one of {', '.join(known)}")
    phantom = ConfigParser(json.loads(recipe.read_text())["phantom"]).get_parsed_content()
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
) -> None:
    """Write the data list of a folder of labelled cases: training, validation and test cases of one fold.

    Args:
        layout: nnunet (also the Medical Segmentation Decathlon's), folders (a folder per case), or, of gliomas,
            brats2015, brats2018, brats2020, brats2023, msd_task01: what a label's values mean follows from it.
        root: the folder.
        out: the list to write, DIR/dataset.json; DIR is then the bundles' dataset_dir.
        modalities: names of the channels in the network's order, such as T1,T2,CET1.
        folds: number of cross-validation folds, by patient where names tell the patient.
        fold: the fold to test on.
        seed: of the assignment to folds.
    """
    names = tuple(modalities.split(",")) if isinstance(modalities, str) else tuple(modalities)
    lists = write_datalist(layout, root, out, names, folds, fold, seed)
    print(f"{out}: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items()))


def picture(*images: str, prediction: str, out: str, truth: str | None = None) -> None:
    """Draw slices of images with the outline of a prediction, and of the truth where given.

    Args:
        images: files, a row each; a 4-D file gives a row for each channel.
        prediction: label map on the same grid.
        out: PNG to write.
        truth: label map on the same grid.
    """
    print(draw_outlines(images, prediction, out, truth))


def scores(*runs: str) -> None:
    """Print the mean scores of evaluations side by side.

    Args:
        runs: folders with a scores.csv, as NAME=FOLDER or FOLDER.
    """
    named = dict(run.rpartition("=")[::2] if "=" in run else (run, run) for run in runs)
    print(compare({name: read_scores(Path(folder) / "scores.csv") for name, folder in named.items()}))


def main() -> None:
    os.environ.setdefault("PAGER", "cat")  # fire shows its help in a pager
    try:
        fire.Fire(
            {"phantoms": phantoms, "datalist": datalist, "picture": picture, "scores": scores}, name="python -m common"
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
