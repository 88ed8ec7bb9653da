"""Whether the labels of a data set hold anything to learn from."""

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
        InputError: it cannot be read.
    """
    return bool((read_volume(Path(path), integers=True)[0] > 0).any())


def check_foreground(cases: Iterable[Mapping], section: str, needed: bool = True) -> None:
    """Check that the label of a case has foreground, in any of the cases; labels are read until one has.

    A network that trains on empty labels alone learns background; scores of empty labels alone choose no epoch. All
    processes of a distributed run call it, each with its part of the cases.

    Args:
        cases: with the path of a ``label``, as of :func:`~common.data.load_cases` or of a data set's ``data``.
        section: list of the cases, for the message.
        needed: raise; otherwise warn, as for a network that only classifies.

    Raises:
        InputError: every label is empty, or one cannot be read.
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
