"""Read and write the record of a training, the file ``run.json`` beside its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.names import first_names
from ..errors import InputError
from ..files import dense_json, read_json, sha256, whole_file
from .identity import combined_digest
from .settings import difference, same_setting

RECORD_FILE = "run.json"
UNTRAINED = "untrained"  # in place of a file of weights


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

    @property
    def seen_cases(self) -> list[dict[str, Any]]:
        """Return the cases that trained or validated the weights, or the weights that the training began from."""
        return [*self.train_cases, *self.validation_cases, *(self.init_cases or [])]

    def write(self, folder: str | Path) -> None:
        """Write ``folder/run.json``.

        Raises:
            InputError: a file lies there that is not a record.
        """
        with whole_file(Path(folder) / RECORD_FILE, is_record) as partial:
            partial.write_text(dense_json(dataclasses.asdict(self)) + "\n", "utf-8", "backslashreplace")

    def check_resumes(self, before: RunRecord, path: Path) -> None:
        """Check that this training can continue the one recorded before.

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
            own, recorded = getattr(self, key), getattr(before, key)
            changed = sorted(
                {c["case"] for c in own if c not in recorded} | {c["case"] for c in recorded if c not in own}
            )
            if changed:
                raise InputError(
                    f"{key}: {first_names(changed)} differ from the cases in {path}; resume with the same data, or "
                    "train into another --ckpt_dir"
                )


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
        if not isinstance(content[key], kind):
            raise InputError(f"{path}: '{key}' is {content[key]!r}; expected {field.type}")
        if kind is list and not all(
            isinstance(case, dict) and isinstance(case.get("case"), str) for case in content[key]
        ):
            raise InputError(f"{path}: '{key}' is not a list of cases; use the file that the training wrote")
        if kind is list and not all(
            case.get(name) is None or isinstance(case[name], str)
            for case in content[key]
            for name in ("patient", "image", "label")
        ):
            raise InputError(f"{path}: '{key}': expected text or null as patient, image and label of a case")
    spacing = content["scans"].get("spacing", {})
    if not isinstance(spacing, dict) or not all(isinstance(v, list) and len(v) == 3 for v in spacing.values()):
        raise InputError(
            f"{path}: 'scans': spacing is {spacing!r}; expected three numbers for each of min, median and max"
        )
    network = content["settings"].get("network_def", {"_target_": ""})
    if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
        raise InputError(f"{path}: 'settings': network_def is {network!r}; expected a component with a _target_")
    return RunRecord(**content)


def is_record(path: Path) -> bool:
    """Return whether a file is the record of a training."""
    try:
        read_record(path)
    except InputError:
        return False
    return True


def read_records(weights: str | Path | Sequence[str | Path]) -> list[RunRecord]:
    """Read the records beside files of weights; weights without a record are left out."""
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    paths = [record_path(file) for file in files if str(file) != UNTRAINED]
    return [read_record(path) for path in dict.fromkeys(paths) if path.is_file()]


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
