"""Verbs of ``python -m common``: each docstring is the help text of its verb."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from monai.bundle import ConfigParser

from .data.datalist import write_datalist
from .data.intensity_statistics import intensity_file, intensity_of
from .data.stacking import stack_volumes, unstack_volume
from .doctor import Findings, examine_bundle, examine_data, examine_machine
from .errors import InputError, UsageError
from .figures import draw_bland_altman, draw_outlines, draw_roc
from .files import read_json
from .options import parse_bool
from .packaging import pack_bundle, verify_package
from .phantoms import write_cohort
from .reporting import compare, compare_paired, read_classes, read_classification, read_scores


def _bundle_folder(bundle: str) -> Path:
    """Return the folder of a bundle, given by its path or its name under bundles/."""
    bundles = Path(__file__).parents[1] / "bundles"
    folder = next((f for f in (Path(bundle), bundles / bundle) if (f / "configs").is_dir()), None)
    if folder is None:
        known = ", ".join(sorted(p.name for p in bundles.glob("*")))
        raise InputError(f"no bundle {bundle}, a folder with configs; expected its path or one of {known}")
    return folder


def phantoms(bundle: str, out: str, cases: int | None = None, seed: int = 0) -> None:
    """Write a cohort of synthetic labelled volumes shaped like a bundle's data, with its data list.

    Args:
        bundle: a name under bundles/, or a bundle's folder; the recipe is "phantom" in its configs/demo.json.
        out: folder to write.
        cases: number of cases; the recipe's own number unless given.
        seed: of the cohort; case N is the same in every cohort of a seed.
    """
    recipe = _bundle_folder(bundle) / "configs" / "demo.json"
    phantom = ConfigParser(read_json(recipe)["phantom"]).get_parsed_content()
    cases = phantom.default_cases if cases is None else cases
    path = write_cohort(phantom, out, cases=cases, seed=seed)
    print(f"{cases} cases in {path}")


def _words(listed: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of an option such as ``T1,T2`` or ``['T1','T2']``."""
    if isinstance(listed, tuple):
        return listed
    return tuple(word.strip().strip("'\"") for word in listed.strip("[]() ").split(","))


def datalist(
    layout: str,
    root: str,
    out: str,
    modalities: str | tuple[str, ...] = (),
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    classes: str | None = None,
    validation_share: float = 0.25,
    splits: str | None = None,
) -> None:
    """Write the data list of a folder of labelled cases: training, validation and test cases of one fold.

    Args:
        layout: nnunet (also the Medical Segmentation Decathlon's), folders (a folder per case), or, of gliomas,
            brats2015, brats2018, brats2020, brats2023, msd_task01, of livers, lits, msd_task03, of lungs, mosmed,
            covid_ct_seg: what a label's values mean follows from it.
        root: the folder.
        out: the list to write, DIR/dataset.json; DIR is then the bundles' dataset_dir.
        modalities: names of the channels in the network's order, such as T1,T2,CET1.
        folds: number of cross-validation folds, by patient where names or classes tell the patient; 5 unless given.
        fold: the fold to test on.
        seed: of the assignment to folds.
        classes: CSV file with the columns case and class, and patient if known; folds then share every class.
        validation_share: part of the patients outside the fold for validation; 0 for none.
        splits: nnU-Net's splits_final.json, in place of folds and seed: fold N tests on the val of its split N.
    """
    lists = write_datalist(layout, root, out, _words(modalities), folds, fold, seed, classes, validation_share, splits)
    print(f"{out}: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items()))


def intensity(dataset_dir: str, fold: int | None = None, validation_share: float = 0.25) -> None:
    """Print the statistics of the foreground's intensities over the training cases of a data list.

    They are computed where their file does not stand beside the list yet; so does a training that needs them.

    Args:
        dataset_dir: folder of the data list.
        fold: cross-validation fold, as for a training; without it the lists as they stand.
        validation_share: as for a training.
    """
    found = intensity_of(dataset_dir, fold, validation_share=validation_share)
    print(", ".join(f"{key} {found[key]:.6g}" for key in ("low", "high", "mean", "sd")))
    file = intensity_file(dataset_dir, fold)
    print(f"{file if file.exists() else dataset_dir}: of {found['cases']} training cases")


def stack(*volumes: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write volumes of one channel each as one 4-D NIfTI file, as MONAI Label and MONAI Deploy take a case.

    They go onto the grid of the first; one that shares no space with it is refused.

    Args:
        volumes: files, or folders of a DICOM series each, in the order of the network's inputs.
        out: file to write, CASE.nii.gz or CASE.nii.
        names: of the channels, such as T1,T2,CET1; unless given, from the files' names.
    """
    print(f"{out}: channels {', '.join(stack_volumes(volumes, out, _words(names)))}")


def unstack(volume: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write each channel of a 4-D file as a file of its own, CASE_NAME.nii.gz.

    Args:
        volume: the file, CASE.nii.gz.
        out: folder to write to.
        names: of the channels; unless given, those that stack has written into the file, or else 0000,0001,...
    """
    for file in unstack_volume(volume, out, _words(names)):
        print(file)


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


def scores(
    *runs: str,
    folds: bool = False,
    common_cases: bool = False,
    paired: bool = False,
    columns: str | tuple[str, ...] = (),
    format: str = "text",
) -> None:
    """Print the mean scores of evaluations side by side, or the paired differences between them.

    Runs with classes of cases also have the scores of the class, with the Brier score and the expected calibration
    error over 10 equal bins. A switch comes after the runs.

    Args:
        runs: folders with a scores.csv, with or without class_scores.csv and classes.csv, as NAME=FOLDER or FOLDER.
        folds: the runs are folds, each with its own cases; two more lines, mean and standard deviation over them.
        common_cases: the runs have different cases; compare those that all have.
        paired: for each score and two runs, the mean difference over the cases with its 95 % bootstrap interval, and
            p of the Wilcoxon signed-rank test with and without Holm's correction over all lines.
        columns: the scores to show, such as "Dice liver" or "Dice liver,Dice tumour"; all unless given.
        format: text, markdown or csv.
    """
    if not runs:
        raise InputError("no runs; give folders of evaluations, NAME=FOLDER or FOLDER")
    named = dict(run.rpartition("=")[::2] if "=" in run else (run, run) for run in runs)
    if len(named) < len(runs):
        raise InputError(f"{len(runs)} runs of {len(named)} names: {', '.join(runs)}; give each its own as NAME=FOLDER")
    folds, common_cases, paired = parse_bool(folds), parse_bool(common_cases), parse_bool(paired)
    if folds and paired:
        raise UsageError("--paired --folds: folds have different cases, which make no pairs; choose one of the two")
    asked = tuple(name.strip() for name in columns.split(",")) if isinstance(columns, str) else columns
    of_cases = {name: read_scores(Path(folder) / "scores.csv") for name, folder in named.items()}
    if paired:
        print(compare_paired(of_cases, common_cases, asked, format))
    else:
        of_classes = {name: read_classification(folder) for name, folder in named.items()}
        print(compare(of_cases, of_classes, folds, common_cases, asked, format))


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


def pack(
    bundle: str,
    weights: str | None = None,
    out: str = "dist",
    overlay: str | None = None,
    scores: str | None = None,
) -> None:
    """Make a folder and a zip of a bundle with its weights that run without this repository.

    Args:
        bundle: a name under bundles/, or a bundle's folder.
        weights: model.pt of a training; the one in the bundle's models/ unless given.
        out: folder for NAME/ and NAME_vVERSION.zip.
        overlay: JSON file with the settings of that training that are not the bundle's defaults; "_meta_::version" and
            the like change metadata.json.
        scores: output folder of an evaluation of the weights, for the metadata.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive = pack_bundle(_bundle_folder(bundle), weights, out, overlay, scores)
    print(f"{archive} and the folder beside it")


def verify(package: str, load: bool = True) -> None:
    """Check a packed bundle: every file against its SHA-256, and that the weights load strictly.

    Loading builds the network, which runs the package's code.

    Args:
        package: its folder or zip.
        load: false checks the files alone, and runs nothing of the package.
    """
    loaded = "the weights load" if load else "nothing of it was run"
    print(f"{verify_package(package, load)}: every file is as it was packed, {loaded}")


def doctor(
    bundle: str | None = None,
    dataset_dir: str | None = None,
    fold: int | None = None,
    overlay: str | None = None,
    headers_only: bool = False,
) -> None:
    """Look for what would fail later: packages, devices, memory, disk, a bundle, every case of a data set.

    Args:
        bundle: a name under bundles/, or a bundle's folder, also a packed one.
        dataset_dir: folder with a dataset.json, or scans as inference takes them.
        fold: cross-validation fold, as for a training.
        overlay: JSON file with settings on top of the bundle's, as in a run.
        headers_only: read no voxels, which is much faster and finds less.
    """
    if dataset_dir is not None and bundle is None:
        raise InputError(f"--dataset_dir {dataset_dir}: name a bundle too, whose configs say what a case must have")
    findings = Findings()
    folders = [Path.cwd(), *([_bundle_folder(bundle)] if bundle is not None else [])]
    print("machine", *examine_machine(findings, folders), sep="\n  ")
    if bundle is not None:
        print(f"bundle {bundle}", *examine_bundle(findings, folders[-1], overlay), sep="\n  ")
    if dataset_dir is not None:
        try:
            found = examine_data(findings, folders[-1], Path(dataset_dir), fold, overlay, headers_only)
        except InputError as error:  # what holds for the whole data set; the rest of the table is shown
            findings.fail("data", str(error))
            found = []
        print(f"data {dataset_dir}", *found, sep="\n  ")
    print(findings.table() or "nothing found that would fail")
    if findings.count("failure"):
        raise InputError(f"{findings.count('failure')} failures, {findings.count('note')} notes: see the table above")


VERBS: dict[str, Callable[..., None]] = {
    "doctor": doctor,
    "phantoms": phantoms,
    "datalist": datalist,
    "intensity": intensity,
    "stack": stack,
    "unstack": unstack,
    "picture": picture,
    "scores": scores,
    "plots": plots,
    "pack": pack,
    "verify": verify,
}
