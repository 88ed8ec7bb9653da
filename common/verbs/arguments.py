"""Read the arguments that several verbs share: bundles, lists of words and runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError


def bundle_folder(bundle: str) -> Path:
    """Return the folder of a bundle from its path or its name in bundles/.

    Raises:
        InputError: if the bundle is unknown, or its folder has no configs.
    """
    bundles = Path(__file__).parents[2] / "bundles"
    folder = next((f for f in (Path(bundle), bundles / bundle) if (f / "configs").is_dir()), None)
    if folder is None:
        known = ", ".join(sorted(p.name for p in bundles.glob("*")))
        raise InputError(f"unknown bundle {bundle}; expected the path of a folder with configs, or one of {known}")
    return folder


def words(listed: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the words in an option such as ``T1,T2`` or ``['T1','T2']``."""
    if isinstance(listed, tuple):
        return listed
    return tuple(word.strip().strip("'\"") for word in listed.strip("[]() ").split(","))


def named_runs(runs: Sequence[str]) -> dict[str, str]:
    """Return the folder of each run by its name.

    Raises:
        InputError: two runs have the same name.
    """
    named = dict((run, run) if "=" not in run or Path(run).is_dir() else run.rpartition("=")[::2] for run in runs)
    if len(named) < len(runs):
        raise InputError(
            f"{len(runs)} runs of {len(named)} names: {', '.join(runs)}; give each its own name, as NAME=FOLDER"
        )
    return named
