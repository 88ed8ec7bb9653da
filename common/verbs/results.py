"""Define the verbs that show results: scores, picture, plots, report."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError, UsageError
from ..figures import draw_bland_altman, draw_outlines, draw_roc
from ..report import write_report
from ..reporting import compare, compare_paired, read_case_scores, read_classes, read_classification, scores_file
from ..rules import parse_bool
from .arguments import named_runs, words


def scores(
    *runs: str,
    folds: bool = False,
    common_cases: bool = False,
    paired: bool = False,
    columns: str | tuple[str, ...] = (),
    format: str = "text",
) -> None:
    """Print the mean scores of evaluations side by side, or the paired differences between them.

    Runs that classify also show classification scores, the Brier score and the expected calibration error over 10
    equal bins. Give switches after the runs.

    Args:
        runs: folders with a scores.csv and, if available, class_scores.csv and classes.csv; or with the summary.json
            of nnU-Net v2. Give each as NAME=FOLDER or FOLDER.
        folds: treat the runs as folds with different cases. Print the mean and standard deviation over the folds, too.
        common_cases: compare only the cases that all runs have.
        paired: for each score and pair of runs, print the mean difference over the cases, its 95 % bootstrap interval
            and p of the Wilcoxon signed-rank test, with and without Holm's correction over all lines.
        columns: scores to print, such as "Dice liver" or "Dice liver,Dice tumour". Default: all.
        format: text, markdown or csv.
    """
    if not runs:
        raise InputError("no runs; give folders of evaluations, NAME=FOLDER or FOLDER")
    named = named_runs(runs)
    folds, common_cases, paired = parse_bool(folds), parse_bool(common_cases), parse_bool(paired)
    if folds and paired:
        raise UsageError("--paired --folds: folds have different cases, so they have no pairs; choose one of the two")
    asked = tuple(name.strip() for name in columns.split(",")) if isinstance(columns, str) else columns
    of_cases = {name: read_case_scores(run) for name, run in named.items()}
    if paired:
        print(compare_paired(of_cases, common_cases, asked, format))
    else:
        of_classes = {name: read_classification(scores_file(run).parent) for name, run in named.items()}
        print(compare(of_cases, of_classes, folds, common_cases, asked, format))


def picture(
    *images: str,
    prediction: str,
    out: str,
    truth: str | None = None,
    heat: str | None = None,
    result: str | None = None,
    modalities: str | tuple[str, ...] = (),
) -> None:
    """Draw slices of images with the outlines of a prediction and, if given, of the ground truth.

    Args:
        images: files on one grid, one row for each. A 4-D file gives one row for each channel.
        prediction: label map on the same grid.
        out: PNG file to write.
        truth: label map of the ground truth on the same grid.
        heat: map of values from 0 to 1 on the same grid, such as a class activation map. It gets a separate row.
        result: CASE_class.json. The caption shows its class and probabilities.
        modalities: names of the rows in their order, such as T1,T2,CET1. Files are put into this order.
    """
    print(draw_outlines(images, prediction, out, truth, heat=heat, result=result, modalities=words(modalities)))


def plots(out: str, classes: str | None = None, scores: str | None = None) -> None:
    """Draw the ROC curve of each class, and a Bland-Altman plot of predicted and true volumes.

    Args:
        out: folder for roc.png and bland_altman.png.
        classes: classes.csv of an evaluation or a cross-validation, or its folder, for roc.png.
        scores: scores.csv of an evaluation that measures volumes, or its folder, for bland_altman.png.
    """
    if classes is None and scores is None:
        raise InputError("nothing to draw; give --classes, --scores or both")
    if classes is not None:
        table = Path(classes) / "classes.csv" if Path(classes).is_dir() else classes
        print(draw_roc(read_classes(table), Path(out) / "roc.png"))
    if scores is not None:
        print(draw_bland_altman(read_case_scores(scores), Path(out) / "bland_altman.png"))


def report(*runs: str, out: str, dataset_dir: str | None = None) -> None:
    """Write one HTML page of evaluations and inferences: scores, plots, sortable cases, slices with outlines.

    The page needs no other file and makes no request to the network.

    Args:
        runs: folders of evaluations, inferences or both, each as NAME=FOLDER or FOLDER.
        out: HTML file to write.
        dataset_dir: folder with the dataset.json of the cases. Folders with masks need it for scans and ground truth.
    """
    if not runs:
        raise InputError("no runs; give folders of evaluations or inferences, NAME=FOLDER or FOLDER")
    print(write_report(named_runs(runs), out, dataset_dir))
