"""Keep the weights, the training state and the record of a training in one folder."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..files import check_replaceable, check_writable
from ..record import RECORD_FILE, RunRecord, read_record
from ..record.run_record import is_record
from .checkpoints import load_file, save_whole
from .replaced_weights import replace_weights
from .stages import Stage

STATE_FILE = "training_state.pt"
STATE_KEYS: dict[str, type | tuple[type, ...]] = {  # kinds of the values
    "stages": list,
    **dict.fromkeys(["stage", "epoch", "first_epoch", "weights_epoch", "best_metric_epoch"], int),
    "best_metric": float,
    **dict.fromkeys(["network", "loss", "optimizer", "settings"], dict),
    "lr_scheduler": (dict, type(None)),
}
RATES = ("lr", "initial_lr", "base_lrs", "_last_lr")  # follow from the learning rate of the first epoch
OTHER_FOLDER = "resume with the config of that training, or train into another --ckpt_dir"
UNUSABLE = "put a copy of the file in its place, or train into another --ckpt_dir"

logger = logging.getLogger(__name__)


class TrainingFolder:
    """Read and write the files of a training.

    The folder holds the weights of the stages, ``training_state.pt`` and ``run.json``.

    Args:
        ckpt_dir: path of the folder.
        resume: whether to continue the training with its state in the folder.
        record: record of the training. It is written to ``run.json`` just before the first weights, so a training that
            is refused at its start leaves no file. A resumed training is compared with the file. None writes none.
        replaces: file of weights in the folder that the complete training replaces, see :func:`replace_weights`. The
            files of the training are then in ``training`` below the folder, where they overwrite an earlier training.
            None, and a file in another folder, replaces nothing.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        resume: bool = False,
        record: RunRecord | None = None,
        replaces: str | Path | None = None,
    ) -> None:
        folder = Path(ckpt_dir)
        self.replaces = None
        if replaces is not None and Path(replaces).resolve().parent == folder.resolve():
            self.replaces = Path(replaces)
        self.path = folder if self.replaces is None else folder / "training"
        self.resume = resume
        self.record = record
        self.is_recorded = True  # whether run.json has the record

    @property
    def state_path(self) -> Path:
        """Return the path of the training state."""
        return self.path / STATE_FILE

    def begin(self, stages: Sequence[Stage], loss: Mapping[str, Tensor]) -> dict[str, Any] | None:
        """Return the state to resume, or None for a new training, and check the record.

        Args:
            stages: stages of the training.
            loss: state dict of the loss.

        Raises:
            InputError: the folder holds a training or weights and ``resume`` is false; the state is damaged, or it
                belongs to other stages or another loss; the record contradicts the file; the folder cannot be written.
        """
        check_writable(self.path if self.replaces is None else self.replaces.parent)
        state = self._read_state(stages, loss) if self.resume and self.state_path.exists() else None
        if state is None:
            if self.replaces is None:
                self._check_empty(stages)
            if self.resume:
                logger.info("nothing to resume in %s; the training begins", self.path)
        if self.record is not None:
            tunings = [stage.fine_tuning for stage in stages if stage.fine_tuning.init_weights is not None]
            record = dataclasses.replace(self.record, **tunings[0].origin()) if tunings else self.record
            record_file = self.path / RECORD_FILE
            if state is not None and record_file.exists():
                before = read_record(record_file)
                record.check_resumes(before, record_file)
                self.record = before.resumed(record, state["epoch"])
                self.is_recorded = self.record == before
                if not self.is_recorded:
                    changed = self.record.changes[-1]["training"] if self.record.changes else {}
                    logger.info("resuming with %s", ", ".join(f"{key} {value}" for key, value in changed.items()))
            else:
                if state is not None:
                    logger.warning(
                        "%s: no such file, so nobody can check that settings and cases are those before", record_file
                    )
                check_replaceable(record_file, is_record)
                self.record, self.is_recorded = record, False
        return state

    def _read_state(self, stages: Sequence[Stage], loss: Mapping[str, Tensor]) -> dict[str, Any]:
        path = self.state_path
        try:
            state = load_file(path)
        except InputError as error:
            raise InputError(f"{path}: not a complete file of tensors and plain values; {UNUSABLE}") from error
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS.keys():
            missing = STATE_KEYS.keys() - (state.keys() if isinstance(state, dict) else ())
            raise InputError(
                f"{path}: expected a training state, found a file without {', '.join(sorted(missing))}; resume with "
                "the version that wrote it, or train into another --ckpt_dir"
            )
        wrong = [key for key, kind in STATE_KEYS.items() if not isinstance(state[key], kind)]
        names = [stage.name for stage in stages]
        if not wrong and state["stages"] != names:
            found = ", ".join(map(str, state["stages"]))
            raise InputError(
                f"{path}: expected a training with the stages {', '.join(names)}, found {found}; {OTHER_FOLDER}"
            )
        if wrong or not (0 <= state["stage"] < len(names) and state["epoch"] > 0):
            shown = wrong[0] if wrong else "stage" if state["epoch"] > 0 else "epoch"
            raise InputError(f"{path}: {shown} is {str(state[shown])[:40]}, which no training writes; {UNUSABLE}")
        if state["loss"].keys() != loss.keys():
            expected, found = (", ".join(parameters) or "none" for parameters in (loss, state["loss"]))
            raise InputError(f"{path}: expected the loss parameters {expected}, found {found}; {OTHER_FOLDER}")
        logger.info("resuming %s after epoch %d", path, state["epoch"])
        return state

    def _check_empty(self, stages: Sequence[Stage]) -> None:
        files = [self.state_path, *(self.path / stage.weights for stage in stages if stage.weights)]
        if kept := [file.name for file in files if file.exists()]:
            resume = "continue with --resume true, or " if self.state_path.exists() else ""
            raise InputError(
                f"{self.path} already holds {', '.join(kept)}: {resume}train into another with --ckpt_dir DIR"
            )

    def restore(self, part: Any, state: dict[str, Any], name: str) -> None:
        """Load the state of a part, such as the network.

        Raises:
            InputError: the state does not fit.
        """
        try:
            part.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.state_path}: the {name} does not fit this training ({reason}); {OTHER_FOLDER}"
            ) from error

    def check_settings(self, own: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
        """Check that a resumed training has the optimiser and the schedule that it began with.

        Args:
            own: result of :func:`optimizer_settings` for the resumed training.
            saved: the same of the training that wrote the state.

        Raises:
            InputError: a setting other than the learning rate differs.
        """
        for key in [*own, *saved]:
            if own.get(key) != saved.get(key) and key.rpartition("::")[2] not in RATES:
                raise InputError(f"{key}: {own.get(key)} here, {saved.get(key)} in {self.state_path}; {OTHER_FOLDER}")

    def _write_record(self) -> None:
        """Write the record of a training, before its first weights and its first state, and when it changes."""
        if not self.is_recorded:
            assert self.record is not None
            self.record.write(self.path)
            self.is_recorded = True

    def _note_weights(self, name: str, digest: str) -> None:
        """Write the digest of weights into the record before they get their name."""
        if self.record is not None:
            record = self.record.with_weights(name, digest)
            self.is_recorded = self.is_recorded and record == self.record
            self.record = record
        self._write_record()

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the training state."""
        self._write_record()
        save_whole(state, self.state_path)

    def save_weights(self, stage: Stage) -> None:
        """Write the weights of a stage that has a file for them."""
        if stage.weights is not None:
            name = stage.weights
            save_whole(cpu_state(stage.network), self.path / name, lambda digest: self._note_weights(name, digest))

    def complete(self, stage: Stage) -> None:
        """Check the weights of the last stage of a complete training, and put them in the place of older ones.

        Raises:
            InputError: the file of the weights is missing, as if it was removed before the training resumed.
        """
        if stage.weights is not None and not (self.path / stage.weights).is_file():
            raise InputError(
                f"{self.path / stage.weights}: no such file, but the training is complete; put the removed file back, "
                "or train again into another --ckpt_dir"
            )
        if self.replaces is not None and stage.weights is not None:
            replace_weights(self.replaces, self.path / stage.weights)

    def complete_weights(self, stage: Stage) -> None:
        """Write the weights of a resumed stage if its training ended between the state and the weights."""
        if stage.weights is not None:
            path, own = self.path / stage.weights, cpu_state(stage.network)
            try:
                kept = load_file(path)
            except InputError:  # missing or damaged; the state has the same weights
                kept = {}
            if kept.keys() != own.keys() or not all(torch.equal(kept[key], own[key]) for key in own):
                self.save_weights(stage)


def cpu_state(part: Any) -> dict[str, Tensor]:
    """Return the state dict of a module on the CPU and contiguous, so that no file depends on the machine.

    A loss that is not a module has no state.
    """
    state = part.state_dict() if isinstance(part, nn.Module) else {}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def optimizer_settings(optimizer: torch.optim.Optimizer, lr_scheduler: Any) -> dict[str, Any]:
    """Return the settings of an optimiser and a scheduler that have not stepped yet, by names for messages."""
    settings: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    settings["lr_scheduler"] = None if lr_scheduler is None else type(lr_scheduler).__name__
    for number, group in enumerate(optimizer.param_groups):
        settings |= {f"optimizer::{number}::{key}": value for key, value in group.items() if key != "params"}
    if lr_scheduler is not None:
        settings |= {f"lr_scheduler::{key}": value for key, value in lr_scheduler.state_dict().items()}
    return settings


def change_rate(optimizer: torch.optim.Optimizer, lr_scheduler: Any, own: Mapping, saved: Mapping) -> None:
    """Give a resumed training another learning rate, as if all of its stage had begun with it.

    Args:
        optimizer: optimiser with its saved state.
        lr_scheduler: scheduler with its saved state, or None.
        own, saved: as for :meth:`TrainingFolder.check_settings`.
    """
    rates = [(own[key], saved[key]) for key in own if key.startswith("optimizer::") and key.endswith("::lr")]
    factors = [1.0 if new == old else new / old for new, old in rates]
    for group, factor in zip(optimizer.param_groups, factors):
        group |= {key: group[key] * factor for key in ("lr", "initial_lr") if key in group}
    if hasattr(lr_scheduler, "base_lrs"):
        lr_scheduler.base_lrs = [rate * factor for rate, factor in zip(lr_scheduler.base_lrs, factors)]
