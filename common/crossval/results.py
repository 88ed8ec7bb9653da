"""Join the results of the finished folds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from monai.bundle import ConfigParser

from ..reporting import (
    class_probabilities,
    format_table,
    named_class_scores,
    read_classes,
    read_classification,
    read_scores,
    write_class_scores,
    write_scores,
)
from ..reporting.formats import Row
from ..reporting.scores import columns_of, deviation, mean
from .ensemble import write_ensemble
from .settings import EVALUATE, Settings
from .state import has_evaluation

TABLE, CLASSES, CLASS_SCORES = "scores.csv", "classes.csv", "class_scores.csv"
LOCK = ".crossval_lock"  # of the processes that share the folds


def join_results(settings: Settings, folds: Sequence[int]) -> str:
    """Write the tables of all cases, and the ensemble of the folds that have any evaluation.

    Args:
        settings: settings of the cross-validation.
        folds: the finished folds, at least one.

    Returns:
        a sentence why the folds form no ensemble, or "" if they do.

    Raises:
        InputError: a table or the ensemble in the folder was changed, or belongs to another run.
    """
    evaluations = {fold: settings.folder(fold) / settings.scores for fold in folds}
    with _alone(settings.out):
        scores = {fold: read_scores(folder / TABLE) for fold, folder in evaluations.items()}
        write_scores(_joined(scores), settings.tables / TABLE)
        if all((folder / CLASSES).exists() for folder in evaluations.values()):
            rows = _joined({fold: read_classes(folder / CLASSES) for fold, folder in evaluations.items()})
            _, probabilities, true = class_probabilities(rows)
            score = ConfigParser(settings.config(EVALUATE)).get_parsed_content("class_scores")
            write_scores(rows, settings.tables / CLASSES)
            write_class_scores(score(torch.tensor(probabilities), torch.tensor(true)), settings.tables / CLASS_SCORES)
        return write_ensemble(settings, [fold for fold in settings.folds() if has_evaluation(settings.folder(fold))])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder, if its file system supports locks."""
    lock = FileLock(folder / LOCK)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _joined(tables: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Return the rows of all folds; with a fixed test set, a row for each case and fold, named by both."""
    names = [row["case"] for table in tables.values() for row in table]
    if len(set(names)) == len(names):
        rows = [row for table in tables.values() for row in table]
    else:
        rows = [{**row, "case": f"{row['case']} (fold {fold})"} for fold, table in tables.items() for row in table]
    return sorted(rows, key=lambda row: row["case"])


def summary(settings: Settings, folds: Sequence[int]) -> str:
    """Return a table with a line for each score: mean and standard deviation over the cases, and over the folds.

    A score of the class has one value over all cases.
    """
    evaluations = [settings.folder(fold) / settings.scores for fold in folds]
    by_fold = [{k: mean(v) for k, v in columns_of(read_scores(folder / TABLE)).items()} for folder in evaluations]
    classes_by_fold = [named_class_scores(read_classification(folder)) for folder in evaluations]
    lines: list[Row] = [["score", "cases", "mean", "sd", "mean of folds", "sd of folds"]]
    for name, values in columns_of(read_scores(settings.tables / TABLE)).items():
        lines.append([name, len(values), mean(values), deviation(values), *_over_folds(by_fold, name)])
    for name, value in named_class_scores(read_classification(settings.tables)).items():
        cases = len(read_classes(settings.tables / CLASSES))
        lines.append([name, cases, value, "", *_over_folds(classes_by_fold, name)])
    return format_table(lines)


def _over_folds(scores: Sequence[Mapping[str, float]], name: str) -> tuple[float, float]:
    """Return mean and standard deviation of a score over the folds where it is defined."""
    values = [value for fold in scores if not math.isnan(value := fold.get(name, math.nan))]
    return mean(values), deviation(values)
