"""Define the verbs of ``python -m common``. Each docstring is the help text of its verb."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from .bundle_list import bundle_table
from .crossval import cross_validate
from .data.datalist import write_datalist
from .data.dicom_series import find_series
from .data.dicom_table import series_table
from .data.intensity_statistics import intensity_file, intensity_of
from .data.stacking import stack_volumes, unstack_volume
from .doctor import Findings, estimate_training, examine_bundle, examine_data, examine_machine
from .doctor.bundle import read_config
from .errors import InputError, UsageError
from .figures import draw_bland_altman, draw_outlines, draw_roc
from .files import read_json
from .nnunet import label_values, write_nnunet
from .options import parse_bool
from .packaging import pack_bundle, verify_package
from .phantoms import write_cohort
from .planning import plan_training, write_plan
from .report import write_report
from .reporting import compare, compare_paired, read_case_scores, read_classes, read_classification, read_scores


def _bundle_folder(bundle: str) -> Path:
    """Return the folder of a bundle from its path or its name in bundles/.

    Raises:
        InputError: if the bundle is unknown, or its folder has no configs.
    """
    bundles = Path(__file__).parents[1] / "bundles"
    folder = next((f for f in (Path(bundle), bundles / bundle) if (f / "configs").is_dir()), None)
    if folder is None:
        known = ", ".join(sorted(p.name for p in bundles.glob("*")))
        raise InputError(f"unknown bundle {bundle}; expected the path of a folder with configs, or one of {known}")
    return folder


def list_bundles(json: bool = False) -> None:
    """List the bundles with their versions, modalities and labels.

    Args:
        json: print a JSON array for programs. Each object has name, version, task, modalities in the order of the
            network, labels with their values, and weights, whether a model.pt is there.
    """
    print(bundle_table(json))


def phantoms(bundle: str, out: str, cases: int | None = None, seed: int = 0) -> None:
    """Write a cohort of synthetic labelled volumes like the data of a bundle, and its data list.

    Args:
        bundle: name in bundles/, or folder of a bundle. The recipe is "phantom" in configs/demo.json.
        out: folder to write to.
        cases: number of cases. Default: the number in the recipe.
        seed: seed of the cohort. Case N is the same in every cohort with this seed.
    """
    recipe = _bundle_folder(bundle) / "configs" / "demo.json"
    phantom = ConfigParser(read_json(recipe)["phantom"]).get_parsed_content()
    cases = phantom.default_cases if cases is None else cases
    path = write_cohort(phantom, out, cases=cases, seed=seed)
    print(f"{cases} cases in {path}")


def _words(listed: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the words in an option such as ``T1,T2`` or ``['T1','T2']``."""
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
    by: str = "patient",
    test: str | None = None,
) -> None:
    """Write the data list of a folder of labelled cases: the training, validation and test cases of one fold.

    The verb nnunet writes a list as a data set of nnU-Net.

    Args:
        layout: layout of the folder, one of nnunet (also for the Medical Segmentation Decathlon), folders (one folder
            for each case), brats2015, brats2018, brats2020, brats2023, msd_task01 (gliomas), lits, msd_task03 (livers),
            mosmed, covid_ct_seg (lungs). The layout can define the meaning of the label values.
        root: folder of the cases.
        out: data list to write, DIR/dataset.json. Give DIR to the bundles as dataset_dir.
        modalities: names of the channels in the network's order, such as T1,T2,CET1.
        folds: number of cross-validation folds, 5 unless given. If file names or classes identify the patients, all
            cases of a patient are in one fold.
        fold: fold to test on, or to validate on with a fixed test set.
        seed: seed of the assignment to folds.
        classes: CSV file with the column case and one or more of class, patient and site. Each fold gets its share of
            every class.
        validation_share: fraction of the patients outside the fold to use for validation; 0 for no validation.
        splits: nnU-Net's splits_final.json, instead of folds and seed. Fold N tests on the cases under val in split N.
        by: what a fold keeps together, patient or site. With site, each case needs a site in the file of classes.
        test: fixed test set, as names of cases with commas, as a text file (.txt) with a name in each line, or as
            numbers at the end of the names, such as 27-46. The other cases are in the folds, which only validate.
    """
    lists = write_datalist(
        layout, root, out, _words(modalities), folds, fold, seed, classes, validation_share, splits, by, test
    )
    print(f"{out}: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items()))


def plan(
    bundle: str,
    dataset_dir: str,
    out: str,
    hours: float = 1.0,
    fold: int | None = None,
    validation_share: float = 0.25,
    modalities: str | tuple[str, ...] = (),
    overlay: str | None = None,
) -> None:
    """Write one overlay that adapts a bundle to the training cases of another data set.

    The overlay goes after train.json, evaluate.json and inference.json, and into pack --overlay. Its key reasons says
    why each setting has its value.

    Args:
        bundle: name in bundles/, or folder of a bundle.
        dataset_dir: folder of a data list, or of a data set in the form of nnU-Net v2 or of the Medical Segmentation
            Decathlon. Only the training cases are read.
        out: overlay to write, such as plan.json.
        hours: time for the training on this machine.
        fold: cross-validation fold, as for a training.
        validation_share: fraction of the patients outside the fold to use for validation, as for a training.
        modalities: names of the channels. Default: those in the data set's dataset.json.
        overlay: JSON file of settings that the plan takes over, such as a rival's network.
    """
    if Path(out).exists():  # before the measurement, which takes minutes
        raise InputError(f"--out {out}: exists and may be an edited plan; remove it, or choose another file")
    given = None if overlay is None else Path(overlay)
    planned = plan_training(
        _bundle_folder(bundle), Path(dataset_dir), hours, fold, validation_share, _words(modalities), given
    )
    write_plan(planned, Path(out))
    for key, reason in planned["reasons"].items():
        print(f"{key}: {_shown(planned[key])} ({reason})")
    print(f"{out}: the overlay for train.json, evaluate.json, inference.json and pack")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nnunet(bundle: str, dataset_dir: str, out: str, overlay: str | None = None, validation_share: float = 0.25) -> None:
    """Write the cases of a data list as a data set of nnU-Net v2, with the same folds, to compare it with a bundle.

    nnU-Net's fold N trains on the training cases of fold N, and evaluates its test cases. nnU-Net 2.8 takes the folds
    from splits_final.json when it plans. A fixed test set goes to imagesTs and labelsTs; fold N then evaluates its own
    cases.

    Args:
        bundle: name in bundles/, or folder of a bundle. Its modalities, labels, label_map and regions count.
        dataset_dir: folder of the data list.
        out: folder to write, nnUNet_raw/DatasetNNN_NAME.
        overlay: JSON file with settings that replace the bundle's, as in a run.
        validation_share: fraction of the patients outside a fold that a training holds out for validation. With 0,
            nnU-Net trains on them too.
    """
    parser = read_config(_bundle_folder(bundle), "train", overlay, dataset_dir)
    modalities, labels, label_map, regions = (
        parser.get_parsed_content(name) for name in ("modalities", "labels", "label_map", "regions")
    )
    cases, splits = write_nnunet(dataset_dir, out, modalities, labels, label_map, regions, validation_share)
    values = ", ".join(f"{name} {value}" for name, value in label_values(labels, regions)[0].items())
    print(f"{out}: {cases} cases; channels {', '.join(modalities)}; labels {values}")
    for number, split in enumerate(splits):
        print(f"fold {number}: " + ", ".join(f"{len(names)} {section}" for section, names in split.items()))


def intensity(dataset_dir: str, fold: int | None = None, validation_share: float = 0.25) -> None:
    """Print the intensity statistics of the foreground in the training cases of a data list.

    If no file beside the list has the statistics yet, compute them and write the file. A training that needs them does
    the same.

    Args:
        dataset_dir: folder of the data list.
        fold: cross-validation fold, as for a training. Default: the training list of the file.
        validation_share: fraction of the patients outside the fold to use for validation, as for a training.
    """
    found = intensity_of(dataset_dir, fold, validation_share=validation_share)
    print(", ".join(f"{key} {found[key]:.6g}" for key in ("low", "high", "mean", "sd")))
    file = intensity_file(dataset_dir, fold)
    print(f"{file if file.exists() else dataset_dir}: statistics of {found['cases']} training cases")


def stack(*volumes: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write single-channel volumes as one 4-D NIfTI file, for MONAI Label and MONAI Deploy.

    The file has the grid of the first volume. The other volumes are resampled to it. A volume that does not overlap
    the first is refused.

    Args:
        volumes: files, or folders of one DICOM series, in the order of the network's inputs.
        out: file to write, CASE.nii.gz or CASE.nii.
        names: names of the channels, such as T1,T2,CET1. Default: names from the file names.
    """
    print(f"{out}: channels {', '.join(stack_volumes(volumes, out, _words(names)))}")


def unstack(volume: str, out: str, names: str | tuple[str, ...] = ()) -> None:
    """Write each channel of a 4-D file to a separate file, CASE_NAME.nii.gz.

    Args:
        volume: 4-D file, CASE.nii.gz.
        out: folder to write to.
        names: names of the channels. Default: the names that stack wrote into the file, or 0000,0001,...
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
    print(draw_outlines(images, prediction, out, truth, heat=heat, result=result, modalities=_words(modalities)))


def crossval(
    bundle: str,
    dataset_dir: str,
    out: str,
    overlay: str = "",
    folds: str | None = None,
    evaluation_overlay: str | None = None,
    **options: str,
) -> None:
    """Train and evaluate all folds of a data list, and print one table of them. The same command again continues.

    Every other option goes to the runs, such as --max_epochs 2 or --device cpu. Each run is a command that is shown.
    The table has the mean and the standard deviation of each score, over the cases and over the folds.

    Args:
        bundle: name in bundles/, or folder of a bundle.
        dataset_dir: folder of a data list with folds, as datalist writes it.
        out: folder for the results: foldN with model.pt, run.json, train.log and scores/; scores.csv with each case
            once; ensemble.json, which goes over inference.json with --ckpt_dir OUT; and the ensemble as one model.pt.
        overlay: JSON file with settings that replace the bundle's, or several, such as plan.json,unet.json.
        folds: folds to train, such as 0,2. Several machines or GPUs can share the folds. Default: all.
        evaluation_overlay: JSON file over the configs of every evaluation, such as configs/evaluate_roi.json, whose
            scores go to scores_roi in OUT and in each fold. Trained folds are only evaluated.
        options: further options of the training and the evaluation.
    """
    numbers = None if folds is None else _words(folds)
    if numbers is not None and not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--folds {folds}: expected numbers of folds, such as 0,2")
    cross_validate(
        _bundle_folder(bundle),
        dataset_dir,
        out,
        _words(overlay) if overlay else (),
        None if numbers is None else [int(number) for number in numbers],
        options,
        functools.partial(print, flush=True),
        evaluation_overlay,
    )


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
    named = _named(runs)
    folds, common_cases, paired = parse_bool(folds), parse_bool(common_cases), parse_bool(paired)
    if folds and paired:
        raise UsageError("--paired --folds: folds have different cases, so they have no pairs; choose one of the two")
    asked = tuple(name.strip() for name in columns.split(",")) if isinstance(columns, str) else columns
    of_cases = {name: read_case_scores(folder) for name, folder in named.items()}
    if paired:
        print(compare_paired(of_cases, common_cases, asked, format))
    else:
        of_classes = {name: read_classification(folder) for name, folder in named.items()}
        print(compare(of_cases, of_classes, folds, common_cases, asked, format))


def _named(runs: Sequence[str]) -> dict[str, str]:
    """Return the folder of each run by its name.

    Raises:
        InputError: two runs have the same name.
    """
    named = dict(run.rpartition("=")[::2] if "=" in run else (run, run) for run in runs)
    if len(named) < len(runs):
        raise InputError(
            f"{len(runs)} runs of {len(named)} names: {', '.join(runs)}; give each its own name, as NAME=FOLDER"
        )
    return named


def plots(out: str, classes: str | None = None, scores: str | None = None) -> None:
    """Draw the ROC curve of each class, and a Bland-Altman plot of predicted and true volumes.

    Args:
        out: folder for roc.png and bland_altman.png.
        classes: classes.csv of an evaluation, or the joined rows of several folds, for roc.png.
        scores: scores.csv of an evaluation that measures volumes, for bland_altman.png.
    """
    if classes is None and scores is None:
        raise InputError("nothing to draw; give --classes, --scores or both")
    if classes is not None:
        print(draw_roc(read_classes(classes), Path(out) / "roc.png"))
    if scores is not None:
        print(draw_bland_altman(read_scores(scores), Path(out) / "bland_altman.png"))


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
    print(write_report(_named(runs), out, dataset_dir))


def pack(
    bundle: str,
    weights: str | None = None,
    out: str = "dist",
    overlay: str | None = None,
    scores: str | None = None,
) -> None:
    """Pack a bundle and its weights into a folder and a zip file that run without this repository.

    Args:
        bundle: name in bundles/, or folder of a bundle.
        weights: model.pt of a training. Default: model.pt in the bundle's models/.
        out: folder for NAME/ and NAME_vVERSION.zip.
        overlay: JSON file with the training settings that differ from the bundle's. Keys "_meta_::NAME" change NAME in
            metadata.json.
        scores: output folder of an evaluation of the weights. Its scores go into metadata.json.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive = pack_bundle(_bundle_folder(bundle), weights, out, overlay, scores)
    print(f"{archive} and the folder beside it")


def verify(package: str, load: bool = True) -> None:
    """Check a packed bundle: compare every file with its SHA-256, and load the weights strictly.

    Loading the weights builds the network, which runs the package's code.

    Args:
        package: folder or zip file of the packed bundle.
        load: load the weights. false only checks the files and runs no code of the package.
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
    """Check packages, devices, memory, disk, a bundle and every case of a data set for later failures.

    If nothing fails, make a few updates of the training and print how long it would take on this machine.

    Args:
        bundle: name in bundles/, or folder of a bundle or a packed bundle.
        dataset_dir: folder with a dataset.json, or folder of scans for inference.
        fold: cross-validation fold, as for a training.
        overlay: JSON file with settings that replace the bundle's, as in a run.
        headers_only: read no voxels and estimate no time. This is much faster and finds fewer problems.
    """
    if dataset_dir is not None and bundle is None:
        raise InputError(f"--dataset_dir {dataset_dir}: name a bundle too; its configs define what a case must have")
    findings = Findings()
    folders = [Path.cwd(), *([_bundle_folder(bundle)] if bundle is not None else [])]
    print("machine", *examine_machine(findings, folders), sep="\n  ")
    if bundle is not None:
        print(f"bundle {bundle}", *examine_bundle(findings, folders[-1], overlay), sep="\n  ")
    if dataset_dir is not None:
        try:
            found = examine_data(findings, folders[-1], Path(dataset_dir), fold, overlay, headers_only)
        except InputError as error:  # an error of the whole data set; the table still shows the other findings
            findings.fail("data", str(error))
            found = []
        if not headers_only and not findings.count("failure"):
            found += estimate_training(findings, folders[-1], Path(dataset_dir), fold, overlay)
        print(f"data {dataset_dir}", *found, sep="\n  ")
    print(findings.table() or "nothing found that would fail")
    if findings.count("failure"):
        raise InputError(f"{findings.count('failure')} failures, {findings.count('note')} notes: see the table above")


def series(folder: str, bundle: str | None = None) -> None:
    """List the DICOM series below a folder: number, description, modality, slices, spacing, verdict and reason.

    Patients and studies are found at any level, with or without a DICOMDIR. In inference, --series NUMBER, "*pattern*"
    or best chooses from this list; best is the thinnest axial series of each study.

    Args:
        folder: folder of an export, or its DICOMDIR.
        bundle: name in bundles/, or folder of a bundle. Series of other modalities than its own are then refused, and a
            bundle with several modalities gets the series of each, by the descriptions.
    """
    modalities = [] if bundle is None else read_config(_bundle_folder(bundle), "inference")["modalities"]
    for study in find_series(folder):
        print(series_table(study, modalities))


VERBS: dict[str, Callable[..., None]] = {
    "list": list_bundles,
    "doctor": doctor,
    "phantoms": phantoms,
    "datalist": datalist,
    "plan": plan,
    "nnunet": nnunet,
    "intensity": intensity,
    "series": series,
    "stack": stack,
    "unstack": unstack,
    "picture": picture,
    "crossval": crossval,
    "scores": scores,
    "plots": plots,
    "report": report,
    "pack": pack,
    "verify": verify,
}
