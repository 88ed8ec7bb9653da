"""Run the command line of the studies: ``python -m studies NAME ...``, ``report`` and ``page``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from common.errors import InputError, UsageError, end_in_one_line
from common.logs import show_any_text, silence_notices

from .page import write_page
from .report import write_report
from .run import run_study
from .study import read_study, studies

WORK = Path(__file__).parent / "work"
ABOUT = """Train and evaluate every arm of a study, then write its report. First it prints the difference that
it can detect. The same command again continues. Ctrl-C stops it; an unfinished training never counts."""

USAGE = """usage: python -m studies STUDY [--seeds N] [--hours H] [--updates N] [--out DIR] [--dataset_dir DIR]
       python -m studies report STUDY [--out DIR]
       python -m studies page [DIR ...]
STUDY is a JSON file like those in studies/definitions, or one of them:
"""


class Parser(argparse.ArgumentParser):
    """Report a wrong command line as a ``UsageError``."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def count(text: str) -> int:
    """Return a whole number of at least 1 from the text of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number of at least 1")
    return int(text)


def duration(text: str) -> float:
    """Return a positive number of hours from the text of an option."""
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text} found, expected a number of hours above 0")
    return hours


def parser_of(verb: str) -> Parser:
    """Return the parser of what follows a verb: ``report``, ``page`` or the name of a study."""
    parser = Parser(prog=f"python -m studies {verb}", allow_abbrev=False)
    if verb == "page":
        parser.description = "Write docs/reference/evidence.md from studies/results."
        parser.add_argument("folders", nargs="*", help="folders of studies; their outcomes go to studies/results first")
        return parser
    parser.add_argument("--out", help="folder of the results; default: studies/work/NAME")
    if verb == "report":
        parser.description = "Write the report of a study from the trainings that are finished."
        parser.add_argument("name", help="name of the study, or its JSON file")
        return parser
    parser.description = ABOUT
    parser.add_argument(
        "--seeds", type=count, default=3, help="trainings of each arm, to which a later run may add; default 3"
    )
    parser.add_argument(
        "--hours", type=duration, help="time for all arms with one seed, CPU time without a GPU; default: the study's"
    )
    parser.add_argument("--updates", type=count, help="updates of each training, instead of --hours")
    parser.add_argument("--dataset_dir", help="folder with imagesTr and labelsTr; default: phantoms, which are made")
    return parser


def run(words: Sequence[str]) -> None:
    """Run a command line.

    Raises:
        UsageError: a word or an option is unknown.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE + "\n".join(f"  {name:10} {read_study(name).title}" for name in studies()))
        return
    verb, *rest = words
    study = None if verb in ("report", "page") else read_study(verb)
    given = parser_of(verb).parse_args(rest)
    if verb == "page":
        print(write_page([Path(folder) for folder in given.folders]))
        return
    study = study or read_study(given.name)
    out = WORK / study.name if given.out is None else Path(given.out)
    if verb != "report":
        real = None if given.dataset_dir is None else Path(given.dataset_dir)
        run_study(study, out, real, given.seeds, given.hours, given.updates)
    print("\n" + write_report(study, out))


def main() -> None:
    """Run the command line of this process."""
    show_any_text()
    silence_notices()
    try:
        run(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)


if __name__ == "__main__":
    end_in_one_line()
    main()
