"""Define the verbs that make and describe data sets: phantoms, datalist, nnunet, intensity."""

from __future__ import annotations

from monai.bundle import ConfigParser

from ..data.datalist import write_datalist
from ..data.intensity_statistics import intensity_file, intensity_of
from ..doctor.bundle import read_config
from ..files import read_json
from ..nnunet import label_values, write_nnunet
from ..phantoms import write_cohort
from .arguments import bundle_folder, words


def phantoms(bundle: str, out: str, cases: int | None = None, seed: int = 0) -> None:
    """Write a cohort of synthetic labelled volumes like the data of a bundle, and its data list.

    Args:
        bundle: name in bundles/, or folder of a bundle. The recipe is "phantom" in configs/demo.json.
        out: folder to write to.
        cases: number of cases. Default: the number in the recipe.
        seed: seed of the cohort. Case N is the same in every cohort with this seed.
    """
    recipe = bundle_folder(bundle) / "configs" / "demo.json"
    phantom = ConfigParser(read_json(recipe)["phantom"]).get_parsed_content()
    cases = phantom.default_cases if cases is None else cases
    path = write_cohort(phantom, out, cases=cases, seed=seed)
    print(f"{cases} cases in {path}")


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
        layout, root, out, words(modalities), folds, fold, seed, classes, validation_share, splits, by, test
    )
    print(f"{out}: " + ", ".join(f"{len(cases)} {section}" for section, cases in lists.items()))


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
    parser = read_config(bundle_folder(bundle), "train", overlay, dataset_dir)
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
