"""The results of a batch of cases on disk: which scan and which weights each was made from, and what is left to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch.distributed as dist

from ..data.names import safe_name
from ..errors import InputError
from ..files import read_json, sha256, whole_file
from ..record import digest_of, made_by

BEGUN, DONE, FAILED = "begun", "done", "failed"

logger = logging.getLogger(__name__)


class CaseResults:
    """Keep a record beside each result, ``CASE_seg.json`` beside ``CASE_seg.nii.gz``.

    It holds the case, its state ("begun", "done" or "failed"), the names and the SHA-256 of its input, the SHA-256 of
    the weights and of their ``run.json``, the SHA-256 of each result, and the reason of a failure. So a result is known
    by the scan that it was made from, not by its name, and a file that somebody else wrote or changed is not replaced.

    Args:
        cases: cases of the batch, with ``case`` and ``image``, or ``case`` and ``error``.
        output_dir: folder of the results.
        endings: endings of the files that each case gets; the first names the record.
        weights: file, files of an ensemble, or "untrained".
        resume: leave out the cases whose results are there and were made from the same scan and weights, and those
            that failed before.
        retry: with ``resume``, do those that failed again.
        settings: settings that the results depend on and the weights' record does not hold, such as the overlap of the
            windows; a resumption needs the same.

    Attributes:
        failed_before: with ``resume``, a line for each case that failed before and is left out.
        done_before: with ``resume``, the number of cases that are left out as done.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        endings: Sequence[str],
        weights: str | Path | Sequence[str | Path],
        resume: bool = False,
        retry: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.cases = {str(case["case"]): dict(case) for case in cases}
        self.output_dir = Path(output_dir)
        self.endings = tuple(endings)
        # the probabilities of a class have a JSON file of their own
        self.mark = self.endings[0].split(".")[0] if self.endings[0].endswith(".nii.gz") else "_seg"
        self.weights = weights
        self.resume = resume
        self.retry = retry
        self.settings = json.loads(json.dumps(dict(settings or {}), default=str))
        self.failed_before: list[str] = []
        self.done_before = 0
        self._begun: dict[str, str | None] = {}  # digests of the scans whose results are being written

    @cached_property
    def made_by(self) -> dict[str, str]:
        """SHA-256 of the weights and of their record."""
        return made_by(self.weights)

    @cached_property
    def to_do(self) -> list[dict[str, Any]]:
        """The cases that are left to do, the same in every process of a distributed run.

        Raises:
            InputError: a result that is there was not written by this project, was changed since, or, with ``resume``,
                was made with other weights.
        """
        found: list[Any] = [None]
        if idist.get_rank() == 0:
            left = [case for name, case in self.cases.items() if self._is_left(name, case)]
            found = [(left, self.failed_before)]
        if idist.get_world_size() > 1:
            dist.broadcast_object_list(found, src=0)
        left, self.failed_before = found[0]
        self.done_before = len(self.cases) - len(left) - len(self.failed_before)
        if self.resume:
            total = len(self.cases)
            logger.info("%d of %d cases have a result in %s already", self.done_before, total, self.output_dir)
        return left

    def begin(self, name: str) -> None:
        """Record that the results of a case are about to be written, so that a run that ends here can be resumed."""
        self._write(name, BEGUN)

    def done(self, name: str) -> None:
        """Record the results of a case."""
        self._write(name, DONE)

    def failed(self, name: str, reason: str) -> None:
        """Record that a case failed, and why."""
        self._write(name, FAILED, reason)

    def _is_left(self, name: str, case: Mapping[str, Any]) -> bool:
        if not _can_be_a_file(name):  # such a case has an error, and no results
            return True
        files = [self._file(name, ending) for ending in self.endings]
        there = [file for file in files if file.exists()]
        record = self._file(name, f"{self.mark}.json")
        if not record.exists():
            if there:
                raise InputError(
                    f"{there[0]}: no {record.name} beside it says which scan it was made from, so it is not replaced; "
                    "move it, or choose another --output_dir"
                )
            return True
        before = _read(record)
        known = {**before["results"], **before.get("before", {}).get("results", {})}
        if before["state"] != BEGUN:
            for file in there:
                if known.get(file.name) != sha256(file):
                    raise InputError(
                        f"{file}: was changed since it was written, so it is not replaced; move it, or choose another "
                        "--output_dir"
                    )
        if not self.resume or before["input"]["sha256"] != digest_of(case.get("image")):
            return True
        made = {**self.made_by, "settings": self.settings}
        if before["state"] == FAILED:
            if self.retry or any(before.get(key) != own for key, own in made.items()):
                return True
            reason = before.get("reason", "no reason was recorded")
            self.failed_before.append(f"{name}: failed before ({reason}); --retry true does it again")
            logger.warning("case %s", self.failed_before[-1])
            return False
        if before["state"] == DONE:
            for key, own in made.items():
                if before.get(key) != own:
                    raise InputError(
                        f"{record}: {key} {before.get(key)}, but {own} in this run; resume with the same weights and "
                        "settings, or choose another --output_dir"
                    )
        return before["state"] == BEGUN or len(there) < len(files)

    def _write(self, name: str, state: str, reason: str | None = None) -> None:
        case = self.cases.get(name)
        if case is None or not _can_be_a_file(name):  # a host program's own data, or a case without a name of its own
            return
        image = case.get("image")
        images = [] if image is None else [image] if isinstance(image, str) else list(image)
        digest = self._begun.pop(name) if name in self._begun else digest_of(image)
        if state == BEGUN:
            self._begun[name] = digest
        files = [file for ending in self.endings if (file := self._file(name, ending)).exists()]
        content = {
            "case": name,
            "state": state,
            "input": {"files": [Path(file).name for file in images], "sha256": digest},
            **self.made_by,
            "settings": self.settings,
            "results": {file.name: sha256(file) for file in files} if state != BEGUN else {},
            **({"reason": reason} if reason is not None else {}),
        }
        path = self._file(name, f"{self.mark}.json")
        earlier = _read(path) if state == FAILED and path.exists() else {}
        if earlier.get("state") == DONE:  # its results are still there, and of the scan as it was then
            content |= {"results": {}, "before": {key: earlier[key] for key in ("input", "results")}}
        elif "before" in earlier:
            content |= {"results": {}, "before": earlier["before"]}
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")

    def _file(self, name: str, ending: str) -> Path:
        return self.output_dir / f"{name}{ending}"


def _can_be_a_file(name: str) -> bool:
    try:
        return safe_name(name) == name
    except InputError:
        return False


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    parts = {"case": str, "state": str, "input": dict, "weights": str, "record": str, "results": dict}
    right = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in parts.items())
    if not right or "sha256" not in content["input"] or not isinstance(content.get("before", {}), dict):
        raise InputError(
            f"{path}: not a record of a result, so it is not replaced; move it, or choose another --output_dir"
        )
    return content
