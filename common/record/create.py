"""Create the record of a training from its config."""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import monai
import torch

from ..data.foreground import check_foreground
from ..data.listed_cases import files_of, read_lists, resolve_case
from ..data.spacing import grid_summary
from ..data.volumes import read_grid
from ..errors import InputError
from ..overlays import used_settings
from ..processes import gather
from ..running_config import running_config
from .identity import case_identities, first_shared
from .run_record import RunRecord
from .settings import resolved_setting

logger = logging.getLogger(__name__)


def run_record(
    recorded: Sequence[str],
    train_cases: Sequence[Mapping],
    validation_cases: Sequence[Mapping],
    dataset_dir: str | Path,
    fold: int | None,
    seed: int,
) -> RunRecord | None:
    """Create the record of the training; the training's config calls this.

    Args:
        recorded: names of the settings to record. An expression that the config does not use, because an overlay
            replaced what refers to it, is not evaluated and left out.
        train_cases: cases of the training data set.
        validation_cases: cases of the validation data set; in a distributed run, those of this process.
        dataset_dir: folder of the data list, which names the test cases; without a list, there are no test cases.
        fold: cross-validation fold, or None.
        seed: seed of the training.

    Returns:
        the record; None in all but the first process of a distributed run.

    Raises:
        InputError: no label of a data set has foreground, and the network only segments; or a case or a patient both
            trains and validates.
    """
    parser, _ = running_config()
    # A network that also classifies learns from cases without a lesion, too.
    segments = parser.get("task") in (None, "seg")
    for section, cases in (("training", train_cases), ("validation", validation_cases)):
        check_foreground(cases, section, needed=segments)
    if idist.get_world_size() > 1:
        everywhere = gather([dict(case) for case in validation_cases])
        validation_cases = sorted(everywhere, key=lambda case: str(case.get("case")))
        if idist.get_rank() > 0:
            return None
    known = parser.get("")
    idle = {key for key in known.keys() - used_settings(known) if str(known[key]).startswith(("$", "@"))}
    training = {
        key: value
        for key, value in known.items()
        if key not in recorded
        and isinstance(value, (bool, int, float))
        and key not in ("resume", "distributed", "save_execute_config")
    }
    trained, validated = case_identities(train_cases), case_identities(validation_cases)
    tested = case_identities(_test_cases(Path(dataset_dir), fold))
    _check_apart(trained, validated, tested)
    meta = parser.get("_meta_", {})
    return RunRecord(
        bundle={"name": str(meta.get("name", "")), "version": str(meta.get("version", ""))},
        settings={key: resolved_setting(parser, key) for key in recorded if key in known and key not in idle},
        training=training,
        fold=fold,
        seed=int(seed),
        scans=grid_summary(read_grid(files_of(case)[0])[1] for case in train_cases if _is_on_disk(case)),
        train_cases=trained,
        validation_cases=validated,
        test_cases=tested,
        versions={"monai-paper-bundles": _own_version(), "monai": monai.__version__, "torch": torch.__version__},
        command=_command(),
    )


def _check_apart(trained: list[dict], validated: list[dict], tested: list[dict]) -> None:
    """Check that no case and no patient is in two lists.

    Raises:
        InputError: one trains and validates, so the validation would choose the best epoch by a case that it has seen.
    """
    if shared := first_shared(validated, trained):
        raise InputError(
            f"the validation case {shared}, trains too; remove it from one list, name one patient in one list only, or "
            "train without validation by --validation_share 0"
        )
    for name, seen in (("training", trained), ("validation", validated)):
        if shared := first_shared(tested, seen):
            logger.warning(
                "the test case %s, is under %s too; an evaluation of these weights will refuse it", shared, name
            )


def _is_on_disk(case: Mapping) -> bool:
    return "image" in case and files_of(case)[0].exists()


def read_cases(root: Path, section: str, fold: int | None) -> list[dict]:
    """Read the cases of one section of a data list, with absolute paths of their images."""
    return [resolve_case(root, item, (), labelled=False) for item in read_lists(root, (), fold).get(section) or []]


def _test_cases(root: Path, fold: int | None) -> list[dict]:
    if not (root / "dataset.json").is_file():
        return []
    cases = read_cases(root, "test", fold)
    for case in cases:
        if isinstance(case.get("label"), str):
            case["label"] = str(root / case["label"])
    return cases


def _command() -> str:
    """Return the command line without the folders of absolute paths, which would describe the machine."""
    words = (
        ["python", "-m", "monai.bundle", *sys.argv[1:]] if "bundle" in Path(sys.argv[0]).parts else ["python", "..."]
    )
    return " ".join(re.sub(r"(?:[A-Za-z]:)?(?<![\w.])[/\\](?:[^'\",\[\]/\\]+[/\\])*", "", word) for word in words)


def _own_version() -> str:
    try:
        return importlib.metadata.version("monai-paper-bundles")
    except importlib.metadata.PackageNotFoundError:  # the code runs without an installation, as in a package
        return "not installed"
