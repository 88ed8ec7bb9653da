"""Check that the labels of a data set have foreground."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import ignite.distributed as idist

from ..errors import InputError
from .volumes import read_volume

logger = logging.getLogger(__name__)


def has_foreground(path: str | Path) -> bool:
    """Return whether a label map has a voxel above 0.

    Raises:
        InputError: the file cannot be read.
    """
    return bool((read_volume(Path(path), integers=True)[0] > 0).any())


def check_foreground(cases: Iterable[Mapping], section: str, needed: bool = True) -> None:
    """Check that at least one case has foreground in its label; stop reading at the first.

    From empty labels, a network only learns background, and validation scores cannot choose the best epoch. In a
    distributed run, all processes call this function, each with its part of the cases.

    Args:
        cases: dicts with the path of a ``label``, as from :func:`~common.data.load_cases`.
        section: name of the cases' list, for the message.
        needed: raise an error if all labels are empty; otherwise warn, as for a network that only classifies.

    Raises:
        InputError: all labels are empty, or one cannot be read.
    """
    labels = [case["label"] for case in cases if isinstance(case.get("label"), (str, Path))]
    found = any(has_foreground(label) for label in labels)
    if idist.get_world_size() > 1:
        found = bool(idist.all_reduce(int(found), "MAX"))
    if found or not labels:
        return
    message = (
        f"{section} list: the labels of all {len(labels)} cases are empty, such as {labels[0]}; at least one needs "
        "foreground: check the labels and the data list"
    )
    if needed:
        raise InputError(message)
    logger.warning("%s", message)
