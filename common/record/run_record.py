"""Read and write the record of a training, the file ``run.json`` beside its weights."""

from __future__ import annotations

import dataclasses
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.names import first_names
from ..errors import InputError
from ..files import dense_json, read_json, sha256, whole_file
from .identity import combined_digest
from .settings import difference, same_setting

RECORD_FILE = "run.json"
UNTRAINED = "untrained"  # in place of a file of weights

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """Hold the record of a training, which identifies and describes the weights beside it.

    Args:
        bundle: name and version of the bundle.
        settings: resolved value of every setting in the config's ``recorded``: network, preprocessing, labels.
        training: other settings of the training, such as the learning rate, as the configs have them.
        fold: held-out cross-validation fold, or None.
        seed: seed of the training.
        scans: orientations and voxel sizes of the training scans, see :func:`common.data.grid_summary`.
        train_cases: training cases: ``case``, ``patient`` or None, and the SHA-256 of ``image`` and ``label``.
        validation_cases: validation cases, likewise.
        test_cases: test cases, likewise.
        versions: version of each package, by name.
        command: command of the training, without the folders of absolute paths.
        init_weights: name and SHA-256 of the ``file`` of weights that the training began from, or None.
        init_cases: cases that trained or validated these weights or those before them, by the record beside the file;
            None without such a record.
        changes: what changed each time that the training resumed: the ``epoch`` after which it resumed, and the new
            values of ``training``; None if nothing changed.
        weights: SHA-256 of each file of weights that the training wrote, the latest first and the one before it, by
            the name of the file; None in a record of an earlier version.
    """

    bundle: dict[str, str]
    settings: dict[str, Any]
    training: dict[str, Any]
    fold: int | None
    seed: int
    scans: dict[str, Any]
    train_cases: list[dict[str, Any]]
    validation_cases: list[dict[str, Any]]
    test_cases: list[dict[str, Any]]
    versions: dict[str, str]
    command: str
    init_weights: dict[str, str] | None = None
    init_cases: list[dict[str, Any]] | None = None
    changes: list[dict[str, Any]] | None = None
    weights: dict[str, list[str]] | None = None

    @property
    def seen_cases(self) -> list[dict[str, Any]]:
        """Return the cases that trained or validated the weights, or the weights that the training began from."""
        return [*self.train_cases, *self.validation_cases, *(self.init_cases or [])]

    def resumed(self, now: RunRecord, epoch: int) -> RunRecord:
        """Return this record of a training that resumes, with what has changed.

        Args:
            now: record of the training as it goes on.
            epoch: last complete epoch.
        """
        used = dict(self.training)
        for change in self.changes or ():
            used |= change["training"]
        changed = {key: value for key, value in now.training.items() if used.get(key) != value}
        if not changed:
            return self
        return dataclasses.replace(self, changes=[*(self.changes or ()), {"epoch": epoch, "training": changed}])

    def with_weights(self, name: str, digest: str) -> RunRecord:
        """Return the record of a training that writes a file of weights.

        The record keeps the digest of the file before, because a training may end before it replaces the file.
        """
        known = (self.weights or {}).get(name, [])
        if known[:1] == [digest]:
            return self
        return dataclasses.replace(self, weights={**(self.weights or {}), name: [digest, *known[:1]]})

    def write(self, folder: str | Path) -> None:
        """Write ``folder/run.json``.

        Raises:
            InputError: a file lies there that is not a record.
        """
        with whole_file(Path(folder) / RECORD_FILE, is_record) as partial:
            partial.write_bytes(self.as_bytes())

    def as_bytes(self) -> bytes:
        """Return the content of the file."""
        return (dense_json(dataclasses.asdict(self)) + "\n").encode("utf-8", "backslashreplace")

    def check_resumes(self, before: RunRecord, path: Path) -> None:
        """Check that this training can continue the one recorded before.

        Another bundle or version with the same settings logs a warning.

        Raises:
            InputError: a setting, the fold, the seed or a list of cases differs; the message names both values.
        """
        for key in sorted(self.settings.keys() | before.settings.keys()):
            own, recorded = self.settings.get(key), before.settings.get(key)
            if not same_setting(own, recorded):
                raise InputError(
                    f"{difference(key, own, recorded)} ({path}); resume with the recorded value, or train into another "
                    "--ckpt_dir"
                )
        if self.bundle != before.bundle:
            began, now = (f"{bundle.get('name')} {bundle.get('version')}" for bundle in (before.bundle, self.bundle))
            logger.warning(
                "%s: the training began with %s and resumes with %s; the weights may differ from those of an "
                "uninterrupted training",
                path, began, now,
            )  # fmt: skip
        for key in ("fold", "seed"):
            if getattr(self, key) != getattr(before, key):
                raise InputError(
                    f"{key}: {getattr(self, key)} here, {getattr(before, key)} in {path}; resume with the recorded one"
                )
        if self.init_weights is not None:
            own, recorded = ((origin or {}).get("sha256") for origin in (self.init_weights, before.init_weights))
            if own != recorded:
                began = (before.init_weights or {}).get("file", "no file")
                raise InputError(
                    f"init_weights: {self.init_weights['file']} (SHA-256 {str(own)[:8]}) here, {began} (SHA-256 "
                    f"{str(recorded)[:8]}) in {path}; leave --init_weights out to resume, or train into another "
                    "--ckpt_dir"
                )
        for key in ("train_cases", "validation_cases"):
            if changed := changed_cases(getattr(self, key), getattr(before, key)):
                raise InputError(
                    f"{key}: {first_names(changed)} differ from the cases in {path}; resume with the same data, or "
                    "train into another --ckpt_dir"
                )


def changed_cases(own: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the cases that differ between two lists.

    A record of an earlier version has fewer entries for each case. Only entries of both lists are compared.
    """
    ones, others = ({case["case"]: case for case in cases} for cases in (own, recorded))
    changed = ones.keys() ^ others.keys()
    for name in ones.keys() & others.keys():
        one, other = ones[name], others[name]
        if any(one[key] != other[key] for key in one.keys() & other.keys()):
            changed.add(name)
    return sorted(changed)


def record_path(weights: str | Path) -> Path:
    """Return the path of the record that belongs to a file of weights."""
    return Path(weights).parent / RECORD_FILE


def read_record(path: Path) -> RunRecord:
    """Read a ``run.json``.

    Raises:
        InputError: not valid JSON, an unknown key, a missing key, or a value of another type.
    """
    content = read_json(path)
    fields = {field.name: field for field in dataclasses.fields(RunRecord)}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object with the keys {', '.join(fields)}")
    for key in content:
        if key not in fields:
            raise InputError(f"{path}: unknown key '{key}'; expected {', '.join(fields)}")
    for key, field in fields.items():
        if key not in content and field.default is None:  # a record of an earlier version
            continue
        if key not in content:
            raise InputError(f"{path}: key '{key}' is missing; use the file that the training wrote")
        kind = {"dict": dict, "list": list, "str": str, "int": int}[str(field.type).split("[")[0].split(" ")[0]]
        if content[key] is None and str(field.type).endswith("| None"):
            continue
        if not isinstance(content[key], kind) or isinstance(content[key], bool):
            raise InputError(f"{path}: '{key}' is {content[key]!r}; expected {field.type}")
        if key.endswith("_cases"):
            _check_cases(path, key, content[key])
    if not all(
        isinstance(change, dict) and isinstance(change.get("training"), dict) for change in content.get("changes") or ()
    ):
        raise InputError(f"{path}: 'changes' is {content['changes']!r}; use the file that the training wrote")
    if not all(isinstance(digests, list) for digests in (content.get("weights") or {}).values()):
        raise InputError(f"{path}: 'weights' is {content['weights']!r}; expected a list of SHA-256 for each file")
    spacing = content["scans"].get("spacing", {})
    is_summary = isinstance(spacing, dict) and (not spacing or {"min", "median", "max"} <= spacing.keys())
    if not is_summary or not all(map(_are_three_numbers, spacing.values())):
        raise InputError(
            f"{path}: 'scans': spacing is {spacing!r}; expected three numbers for each of min, median and max"
        )
    network = content["settings"].get("network_def", {"_target_": ""})
    if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
        raise InputError(f"{path}: 'settings': network_def is {network!r}; expected a component with a _target_")
    return RunRecord(**content)


def _check_cases(path: Path, key: str, cases: Sequence[Any]) -> None:
    if not all(isinstance(case, dict) and isinstance(case.get("case"), str) for case in cases):
        raise InputError(f"{path}: '{key}' is not a list of cases; use the file that the training wrote")
    names = ("patient", "image", "label")
    if not all(case.get(name) is None or isinstance(case[name], str) for case in cases for name in names):
        raise InputError(f"{path}: '{key}': expected text or null as patient, image and label of a case")


def _are_three_numbers(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)


def is_record(path: Path) -> bool:
    """Return whether a file has the keys of a record, also of a network that a program has set."""
    try:
        content = read_json(path)
    except InputError:
        return False
    fields = dataclasses.fields(RunRecord)
    needed = {field.name for field in fields if field.default is not None}
    return isinstance(content, dict) and needed <= content.keys() <= {field.name for field in fields}


def read_records(weights: str | Path | Sequence[str | Path]) -> list[RunRecord]:
    """Read the records beside files of weights; weights without a record are left out.

    Raises:
        InputError: as :func:`record_of`.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    records = {record_path(file): record_of(file) for file in files if str(file) != UNTRAINED}
    return [record for record in records.values() if record is not None]


def record_of(weights: str | Path) -> RunRecord | None:
    """Read the record beside a file of weights; return None if there is none.

    Raises:
        InputError: as :func:`read_record`, or the record is that of other weights.
    """
    path, file = record_path(weights), Path(weights)
    if not path.is_file():
        return None
    record = read_record(path)
    recorded = (record.weights or {}).get(file.name)
    if recorded and file.is_file() and (found := sha256(file)) not in recorded:
        if not zipfile.is_zipfile(file):  # PyTorch's files are zips, which a cut file is not
            raise InputError(f"{file}: not a complete file of weights, and not that of {path}; copy it again")
        raise InputError(
            f"{path}: the record of other weights than {file.name} (SHA-256 {found[:8]} here, "
            f"{' or '.join(str(digest)[:8] for digest in recorded)} in the record); put the {RECORD_FILE} of these "
            "weights beside them, or remove it to use weights without a record"
        )
    return record


def made_by(weights: str | Path | Sequence[str | Path]) -> dict[str, str]:
    """Return the SHA-256 of the weights and of their record, which identify a network or an ensemble.

    A missing record is "none". The weights are "untrained" for a network as it was initialised, and "none" if there is
    no file, as for a network that gets its weights from a program.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    if [str(file) for file in files] == [UNTRAINED]:
        return {"weights": UNTRAINED, "record": "none"}
    paths = [record_path(file) for file in files]
    return {
        "weights": combined_digest([sha256(Path(file)) if Path(file).is_file() else "none" for file in files]),
        "record": combined_digest([sha256(path) if path.is_file() else "none" for path in paths]),
    }
