"""Train and evaluate the folds of a cross-validation in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..child import run_child
from ..errors import InputError, UsageError
from ..files import make_folder
from .ensemble import ENSEMBLE
from .results import TABLE, join_results, summary
from .settings import Settings, shown_command
from .state import (
    check_evaluation,
    check_settings,
    check_unchanged,
    is_evaluated,
    is_trained,
    note_evaluated,
    note_trained,
)


class FoldError(InputError):
    """Report that the training or the evaluation of a fold failed.

    Args:
        message: the text to show.
        status: exit status of the failed command.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def cross_validate(
    bundle: str | Path,
    dataset_dir: str | Path,
    out: str | Path,
    overlays: Sequence[str | Path] = (),
    folds: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    say: Callable[[str], object] = print,
    evaluation_overlay: str | Path | None = None,
) -> None:
    """Train each fold, evaluate it on its test cases, and join the results of all finished folds.

    A finished fold is left as it is, and an interrupted one is continued. Each training and each evaluation is a
    command of its own, which is shown.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of a data list with folds.
        out: folder for ``foldN/``, ``scores.csv``, the ensemble (``ensemble.json``, ``model.pt`` and ``run.json``) and,
            if cases have a class, ``classes.csv`` and ``class_scores.csv``.
        overlays: config files over ``train.json``, and over ``train.json`` and ``evaluate.json``.
        folds: folds to train; None trains all.
        options: further options of the runs, as texts by name.
        say: receives the lines to show.
        evaluation_overlay: config file over those of every evaluation. Each fold and ``out`` get a folder for its
            scores, such as ``scores_roi`` for ``evaluate_roi.json``; those of other evaluations stay.

    Raises:
        UsageError: an option or a fold is unknown.
        InputError: the list has no folds; or settings, cases or results in ``out`` differ from those that the
            cross-validation began with.
        FoldError: the run of a fold failed; the results of the finished folds are written.
    """
    settings = Settings(
        _nearby(Path(bundle)),
        Path(dataset_dir),
        Path(out),
        [Path(file) for file in overlays],
        options,
        Path(evaluation_overlay) if evaluation_overlay else None,
    )
    every = settings.folds()
    chosen = every if folds is None else list(dict.fromkeys(folds))
    if unknown := [fold for fold in chosen if fold not in every]:
        raise UsageError(f"--folds {unknown[0]}: no such fold in {dataset_dir}; expected {', '.join(map(str, every))}")
    make_folder(out)
    check_unchanged(settings)
    check_evaluation(settings)
    if computed := settings.dependent_on_fold():
        say(
            f"note: {', '.join(computed)}: computed from the training cases of each fold, so the folds form no ensemble"
            "; to get one, give the same values to all folds by --overlay"
        )
    for fold in chosen:
        folder = settings.folder(fold)
        if is_evaluated(folder, settings.scores):
            say(f"fold {fold}: finished before")
            continue
        try:
            if not is_trained(folder):
                _run(settings.training(fold), f"fold {fold}, training", say)
                check_settings(settings)  # another process may have begun with other settings meanwhile
                note_trained(folder)
            _run(settings.evaluation(fold), f"fold {fold}, evaluation", say)
            note_evaluated(folder, settings.scores)
        except FoldError:
            if finished := _finished(settings, every):
                join_results(settings, finished)
            raise
    finished = _finished(settings, every)
    why_not = join_results(settings, finished)
    say(f"\n{settings.bundle.name}, {_named(finished)} of {len(every)}")
    say(summary(settings, finished))
    ensemble = why_not or f"the ensemble of the networks is {settings.out / ENSEMBLE}"
    say(f"scores of each case are in {settings.tables / TABLE}; {ensemble}")
    if missing := [fold for fold in every if fold not in finished]:
        say(f"missing: {_named(missing)}; run the command again, with --folds {','.join(map(str, missing))} or without")


def _nearby(folder: Path) -> Path:
    """Return a folder below the working directory by its relative path, which makes shorter commands."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _run(command: Sequence[str], title: str, say: Callable[[str], object]) -> None:
    """Show and run the command of a fold.

    Raises:
        FoldError: the command failed.
    """
    say(f"\n{title}:\n{shown_command(command)}")
    ended = run_child(command)
    if ended.status:
        reason = ended.error or f"ended with exit status {ended.status}; see its output above"
        raise FoldError(f"{title}: {reason}", ended.status)


def _finished(settings: Settings, folds: Sequence[int]) -> list[int]:
    return [fold for fold in folds if is_evaluated(settings.folder(fold), settings.scores)]


def _named(folds: Sequence[int]) -> str:
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
