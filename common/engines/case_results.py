"""Keep a record of the results of a batch on disk, and find the cases that are left to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch.distributed as dist
from monai.transforms import Compose

from ..data.listed_cases import shard_for_rank
from ..errors import InputError
from ..files import sha256, whole_file
from ..record import digest_of, made_by
from ..rules import parse_bool
from .case_origin import about_run, check_case_table, origin_of_case, write_case_table
from .case_record import BEGUN, DONE, FAILED, can_name_files, own_record, read_case_record, recorded_results
from .case_status import InProgress, StatusFile, check_status_name, killed_with

logger = logging.getLogger(__name__)


class CaseResults:
    """Keep a record beside each result, ``CASE_seg.json`` beside ``CASE_seg.nii.gz``.

    The record holds the case, its state ("begun", "done" or "failed") and the reason of a failure. It also holds the
    names of the input files, and the SHA-256 of the input, of the weights, of their ``run.json`` and of each result. A
    result is thus recognised by its scan and not by its name. A file that another program wrote, or that was changed,
    is not replaced. The record also says how the result was made; see :mod:`common.engines.case_origin`.

    A run notes the cases in progress. After a run that was killed, as for lack of memory, ``resume`` counts a case as
    failed if it was in progress alone. Several such cases are done last, and the run then does one case at a time.

    Args:
        cases: cases of the batch, with ``case`` and ``image``, or ``case`` and ``error``.
        output_dir: folder of the results.
        postprocessing: transforms of the evaluator. Each transform with an ``ending`` makes a file ``CASE`` plus this
            ending, such as ``_seg.nii.gz``. The label map names the record, or else the first NIfTI file. The record
            holds the names of the ``channels`` of a transform's file.
        weights: file, files of an ensemble, or "untrained".
        resume: whether to leave out the cases that failed before or that have results of the same scan and weights.
        retry: with ``resume``, do again the cases that failed before.
        settings: settings that change the results and that the weights' record does not hold, such as the overlap of
            windows. A resumption needs the same.
        status: CSV file that grows by a line for each case while the batch runs, or None; see :class:`StatusFile`.
        case_timeout: largest time of a case in s; a case that reaches it fails. None has no limit.

    Attributes:
        failed_before: names of the cases that failed before and that ``resume`` leaves out.
        done_before: number of the cases that ``resume`` leaves out as done.
        machine: ``device`` and ``precision`` of the run; the evaluator sets them.
        one_at_a_time: whether no case may begin before the previous one has ended.
    """

    def __init__(
        self,
        cases: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        postprocessing: Compose,
        weights: str | Path | Sequence[str | Path],
        resume: bool | str = False,
        retry: bool | str = False,
        settings: Mapping[str, Any] | None = None,
        status: str | Path | None = None,
        case_timeout: float | None = None,
    ) -> None:
        self.cases = {str(case["case"]): dict(case) for case in cases}
        self.output_dir = Path(output_dir)
        endings = [step.ending for step in postprocessing.transforms if hasattr(step, "ending")]
        maps = sorted((end for end in endings if end.endswith(".nii.gz")), key=lambda end: not end.startswith("_seg"))
        self.endings = tuple(dict.fromkeys([*maps, *endings]))
        self.mark = maps[0].split(".")[0] if maps else "_seg"  # `_class.json` holds the probabilities of a class
        steps = [step for step in postprocessing.transforms if hasattr(step, "channels") and hasattr(step, "ending")]
        self.channels: dict[str, list[str]] = {step.ending: list(step.channels) for step in steps}
        self.weights = weights
        self.resume = parse_bool(resume)
        self.retry = parse_bool(retry)
        self.settings = json.loads(json.dumps(dict(settings or {}), default=str))
        self.status = status
        self.case_timeout = case_timeout
        named = [
            step.labels for step in postprocessing.transforms if isinstance(getattr(step, "labels", None), Mapping)
        ]
        self.labels: dict[str, int] = dict(next(filter(None, named), {}))
        self.about = about_run()
        self.machine: dict[str, str] = {}
        self.one_at_a_time = False
        self.failed_before: list[str] = []
        self.done_before = 0
        self._status: StatusFile | None = None
        self._in_progress: InProgress | None = None
        self._begun: dict[str, str | None] = {}  # digests of the scans with results that are being written
        self._kept: dict[str, dict[str, Any]] = {}  # results of earlier runs that this run does not write, by case

    @cached_property
    def made_by(self) -> dict[str, str]:
        """Return the SHA-256 of the weights and of their record."""
        return made_by(self.weights)

    @cached_property
    def to_do(self) -> list[dict[str, Any]]:
        """Return the cases that are left to do, in a distributed run the share of this process.

        Raises:
            InputError: if a result in the folder was not written by this project or was changed since, or, with
                ``resume``, was made with other weights.
        """
        found: list[Any] = [None]
        if idist.get_rank() == 0:
            if self.status is not None:
                endings = (*self.endings, f"{self.mark}.json")
                check_status_name(self.status, [self._file(name, end) for name in self.cases for end in endings])
            suspects = self._suspects()
            left = [case for name, case in self.cases.items() if self._is_left(name, case)]
            check_case_table(self.output_dir)
            left.sort(key=lambda case: case["case"] in suspects)  # the others first
            found = [(left, self.failed_before, any(case["case"] in suspects for case in left))]
            if self.status is not None:
                StatusFile(self.status, self.resume)
        if idist.get_world_size() > 1:
            dist.broadcast_object_list(found, src=0)
        left, self.failed_before, self.one_at_a_time = found[0]
        self._in_progress = InProgress(self.output_dir, idist.get_rank())
        if self.status is not None:
            self._status = StatusFile(self.status, resume=True)
        self.done_before = len(self.cases) - len(left) - len(self.failed_before)
        if self.resume:
            total = len(self.cases)
            logger.info("%d of %d cases have a result in %s already", self.done_before, total, self.output_dir)
        return shard_for_rank(left)

    def started(self, name: str) -> None:
        """Note that the work on a case begins."""
        if self._in_progress is not None and name in self.cases:
            self._in_progress.begin(name)

    def settled(self, name: str, state: str, reason: str, seconds: float, peak_mb: float) -> None:
        """Note that the work on a case has ended, and add its line to the status file.

        Args:
            name: name of the case.
            state: ``done`` or ``failed``.
            reason: reason of a failure, or "".
            seconds: time of the work in s.
            peak_mb: largest memory of the process in MB since the previous case.
        """
        if self._in_progress is not None:
            self._in_progress.end(name)
        if self._status is not None:
            self._status.add(name, state, reason, f"{seconds:.2f}", f"{peak_mb:.1f}")

    def close(self) -> None:
        """Note that the run ends without being killed."""
        if self._in_progress is not None:
            self._in_progress.close()

    def begin(self, name: str) -> None:
        """Record that the results of a case are about to be written, so that an interrupted run can be resumed."""
        self._write(name, BEGUN)

    def done(self, name: str, seconds: float | None = None, volumes: Mapping[str, float] | None = None) -> None:
        """Record the results of a case.

        Args:
            name: name of the case.
            seconds: time of the work in s.
            volumes: volume of each label in ml.
        """
        self._write(name, DONE, seconds=seconds, volumes=volumes)

    def failed(self, name: str, reason: str, seconds: float | None = None) -> None:
        """Record that a case failed, with the reason."""
        self._write(name, FAILED, reason, seconds)

    def provenance(self) -> dict[str, str]:
        """Return what makes the results of this run, as texts for a DICOM object."""
        settings = {name: json.dumps(value) for name, value in self.settings.items()}
        return {**self.made_by, **settings, **self.machine}

    def write_table(self) -> None:
        """Write ``cases.csv``, a row for each case of the batch that has a record."""
        paths = [self._file(name, f"{self.mark}.json") for name in self.cases if can_name_files(name)]
        write_case_table([read_case_record(path) for path in paths if path.exists()], self.labels, self.output_dir)

    def _suspects(self) -> set[str]:
        """Return the cases of which one may have killed an earlier run; record a single one as failed.

        A run without ``resume`` does all cases anyway.
        """
        groups = killed_with(self.output_dir) if self.output_dir.is_dir() else []
        if not self.resume:
            return set()
        suspects = {name for group in groups for name in group if name in self.cases}
        alone = {group[0] for group in groups if len(group) == 1 and group[0] in self.cases}
        for name in alone if not self.retry else ():
            self._write(name, FAILED, "the run was killed during this case, perhaps for lack of memory")
        return suspects

    def _is_left(self, name: str, case: Mapping[str, Any]) -> bool:
        """Return whether a case has to be done.

        Raises:
            InputError: a file in the place of its results must not be replaced, or was made with other weights or
                settings.
        """
        if not can_name_files(name):  # such a case has an error and no results
            return True
        files = [self._file(name, ending) for ending in self.endings]
        there = [file for file in files if file.exists()]
        record = self._file(name, f"{self.mark}.json")
        before = own_record(record, there)
        if before is None:
            return True
        same_scan = before["input"]["sha256"] == digest_of(case.get("image"))
        made = {**self.made_by, "settings": self.settings}
        differing = [key for key, value in made.items() if before.get(key) != value]
        self._kept[name] = self._results_of_others(before, files, same_scan and not differing)
        if not self.resume or not same_scan:
            return True
        if before["state"] == FAILED:
            if self.retry or differing:
                return True
            reason = before.get("reason", "no reason was recorded")
            self.failed_before.append(name)
            logger.warning("case %s: failed before (%s); --retry true does it again", name, reason)
            return False
        if before["state"] == DONE and differing:
            key = differing[0]
            raise InputError(
                f"{record}: {key} {before.get(key)}, but {made[key]} in this run; resume with the same weights and "
                "settings, or choose another --output_dir"
            )
        return before["state"] == BEGUN or len(there) < len(files)

    def _results_of_others(self, before: Mapping[str, Any], files: Sequence[Path], alike: bool) -> dict[str, Any]:
        """Return the results of a case that an earlier run wrote and this one does not write.

        Args:
            before: record of the case.
            files: files that this run writes.
            alike: whether both runs have the same scan, weights and settings.

        Raises:
            InputError: there are such results, and the runs differ.
        """
        own = {file.name for file in files}
        results = {
            name: digest
            for name, digest in recorded_results(before).items()
            if name not in own and (self.output_dir / name).exists()
        }
        if results and not alike:
            raise InputError(
                f"{self.output_dir / min(results)}: made from another scan, or with other weights or settings, and "
                "this run does not write it; move it, choose another --output_dir, or add the option that writes it"
            )
        channels = {name: names for name, names in before.get("channels", {}).items() if name in results}
        return {"results": results, "channels": channels}

    def _write(
        self,
        name: str,
        state: str,
        reason: str | None = None,
        seconds: float | None = None,
        volumes: Mapping[str, float] | None = None,
    ) -> None:
        case = self.cases.get(name)
        if case is None or not can_name_files(name):  # a host program's own data, or a case without a name of its own
            return
        image = case.get("image")
        images = [] if image is None else [image] if isinstance(image, str) else list(image)
        digest = self._begun.pop(name) if name in self._begun else digest_of(image)
        if state == BEGUN:
            self._begun[name] = digest
        files = {ending: file for ending in self.endings if (file := self._file(name, ending)).exists()}
        kept = self._kept.get(name, {})
        results = {file.name: sha256(file) for file in files.values()} if state != BEGUN else {}
        named = {files[ending].name: names for ending, names in self.channels.items() if ending in files}
        channels = {**kept.get("channels", {}), **(named if state != BEGUN else {})}
        content = {
            "case": name,
            "state": state,
            "input": {"files": [Path(file).name for file in images], "sha256": digest},
            **self.made_by,
            "settings": self.settings,
            "results": {**kept.get("results", {}), **results},
            **({"channels": channels} if channels else {}),
            **({"reason": reason} if reason is not None else {}),
            **self.about,
            **self.machine,
            **origin_of_case(images, self.labels, [file.name for file in files.values()], seconds, volumes),
        }
        path = self._file(name, f"{self.mark}.json")
        earlier = read_case_record(path) if state == FAILED and path.exists() else {}
        if earlier.get("state") == DONE:  # its results are still there, and of the scan as it was then
            content |= {"results": {}, "before": {key: earlier[key] for key in ("input", "results")}}
        elif "before" in earlier:
            content |= {"results": {}, "before": earlier["before"]}
        with whole_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")

    def _file(self, name: str, ending: str) -> Path:
        return self.output_dir / f"{name}{ending}"
