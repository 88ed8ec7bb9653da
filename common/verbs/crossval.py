"""Define the verb that trains and evaluates all folds."""

from __future__ import annotations

import functools

from ..crossval import cross_validate
from ..errors import UsageError
from .arguments import bundle_folder, words


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
        evaluation_overlay: JSON file over the configs of every evaluation, such as configs/evaluate_roi.json. Its
            scores go to scores_roi in OUT and in each fold. Trained folds are only evaluated.
        options: further options of the training and the evaluation.
    """
    numbers = None if folds is None else words(folds)
    if numbers is not None and not all(number.isdecimal() for number in numbers):
        raise UsageError(f"--folds {folds}: expected numbers of folds, such as 0,2")
    cross_validate(
        bundle_folder(bundle),
        dataset_dir,
        out,
        words(overlay) if overlay else (),
        None if numbers is None else [int(number) for number in numbers],
        options,
        functools.partial(print, flush=True),
        evaluation_overlay,
    )
