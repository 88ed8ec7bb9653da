"""Run the command line of the studies: ``python -m studies NAME ...``, ``report`` and ``page``."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import fire

from common.errors import InputError, UsageError, end_in_one_line
from common.logs import show_any_text, silence_notices

from .page import write_page
from .report import write_report
from .run import run_study
from .study import read_study, studies

WORK = Path(__file__).parent / "work"


def study(
    name: str,
    seeds: int = 3,
    hours: float | None = None,
    updates: int | None = None,
    out: str | None = None,
    dataset_dir: str | None = None,
) -> None:
    """Train and evaluate every arm of a study, then write its report. The same command again continues.

    Before it starts, it prints the difference that it can detect. Ctrl-C stops it; an unfinished training never counts.

    Args:
        name: name of a study, or a JSON file of the same form as those in studies/definitions.
        seeds: number of trainings of each arm. A later run may have more.
        hours: time for all arms with one seed on this machine, CPU time without a GPU. Default: that of the study.
        updates: updates of each training, instead of hours; with them, another machine repeats the study.
        out: folder for the results. Default: studies/work/NAME.
        dataset_dir: folder of real cases (imagesTr, labelsTr). Default: phantoms, which the study makes.
    """
    for option, value, least in (("seeds", seeds, 1), ("hours", hours, 0), ("updates", updates, 1)):
        kinds = (int, float) if option == "hours" else (int,)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not value >= least):
            raise UsageError(f"--{option} {value}: expected a number of at least {least}")
    chosen, folder = read_study(str(name)), _folder(str(name), out)
    run_study(chosen, folder, None if dataset_dir is None else Path(str(dataset_dir)), seeds, hours, updates)
    report(name, out)


def report(name: str, out: str | None = None) -> None:
    """Write claims.csv, claims.png, report.md and outcome.json of a study from what is finished, and print report.md.

    Args:
        name: as for a study.
        out: folder of the study.
    """
    print("\n" + write_report(read_study(str(name)), _folder(str(name), out)))


def page(*folders: str) -> None:
    """Write docs/reference/evidence.md from the results in studies/results.

    Args:
        folders: folders of finished studies; their outcome.json is copied to studies/results first.
    """
    print(write_page([Path(str(folder)) for folder in folders]))


def _folder(name: str, out: str | None) -> Path:
    return Path(str(out)) if out is not None else WORK / Path(name).stem


def main() -> None:
    """Run the command line of this process."""
    os.environ.setdefault("PAGER", "cat")  # fire shows its help in a pager
    show_any_text()
    silence_notices()
    verbs = {**{name: functools.partial(study, name) for name in studies()}, "report": report, "page": page}
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    try:
        if first.endswith(".json"):
            verbs[first] = functools.partial(study, first)
        elif first not in verbs and not first.startswith("-"):
            raise UsageError(f"unknown study {first}; expected one of {', '.join(verbs)}, or a JSON file")
        fire.Fire(verbs, name="python -m studies")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)


if __name__ == "__main__":
    end_in_one_line()
    main()
