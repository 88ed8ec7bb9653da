"""Merge the settings of a cross-validation, and make the commands of its folds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from ..data.listed_cases import all_items, load_cases, read_lists
from ..errors import InputError, UsageError
from ..files import read_json
from ..overlays import used_settings
from ..rules import check_setting, setting_of

TRAIN, EVALUATE = ("train.json",), ("train.json", "evaluate.json")
OWN = {  # options of a run that a cross-validation sets, and how to set them here
    **dict.fromkeys(("bundle_root", "ckpt_dir", "output_dir", "log_file", "weights", "resume"), "leave it out"),
    **dict.fromkeys(("section", "cases", "limit", "allow_seen_cases"), "each fold evaluates all of its test cases"),
    "dataset_dir": "leave it out",
    "distributed": "each fold trains in one process; share the folds between the devices by --folds",
    "fold": "choose folds by --folds, such as --folds 0,2",
}
WEIGHTS = "model.pt"
SCORES = "scores"  # folder of an evaluation in the folder of its fold


@dataclass(frozen=True)
class Settings:
    """Hold what a cross-validation is started with.

    Args:
        bundle: folder of the bundle.
        dataset_dir: folder of the data list.
        out: folder of the results.
        overlays: config files over those of the bundle.
        options: further options of the runs, as the command line has them.
        evaluation_overlay: config file over those of every evaluation alone, or None.

    Raises:
        UsageError: an option is unknown, or the cross-validation sets it.
        InputError: an overlay or ``evaluation_overlay`` is missing or has no settings.
    """

    bundle: Path
    dataset_dir: Path
    out: Path
    overlays: Sequence[Path] = ()
    options: Mapping[str, str] | None = None
    evaluation_overlay: Path | None = None

    def __post_init__(self) -> None:
        given = [("overlay", file) for file in self.overlays]
        given += [("evaluation_overlay", self.evaluation_overlay)] if self.evaluation_overlay else []
        for option, file in given:
            if not isinstance(read_json(file), dict):
                raise InputError(f"--{option} {file}: expected a JSON object with settings")
        known = ConfigParser.load_config_files(self.evaluation_files)
        for name in self.given:
            if setting_of(name) in OWN:
                raise UsageError(f"--{name}: crossval sets it for each fold; {OWN[setting_of(name)]}")
            check_setting(name, known, f"crossval and {self.bundle.name}", "--")

    @property
    def given(self) -> dict[str, str]:
        """Return the options of the runs."""
        return dict(self.options or {})

    def files(self, names: Sequence[str]) -> list[str]:
        """Return the paths of the bundle's configs, and of the overlays after them."""
        return [*(str(self.bundle / "configs" / name) for name in names), *map(str, self.overlays)]

    @property
    def evaluation_files(self) -> list[str]:
        """Return the paths of the configs of an evaluation."""
        return [*self.files(EVALUATE), *([str(self.evaluation_overlay)] if self.evaluation_overlay else [])]

    @property
    def scores(self) -> str:
        """Return the name of the folder of an evaluation, such as ``scores_roi`` of ``evaluate_roi.json``."""
        overlay = self.evaluation_overlay
        return f"{SCORES}_{overlay.stem.removeprefix('evaluate_')}" if overlay else SCORES

    @property
    def tables(self) -> Path:
        """Return the folder of the tables of all folds."""
        return self.out / self.scores if self.evaluation_overlay else self.out

    def config(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the configs of the bundle, merged with the overlays and options."""
        parser = ConfigParser(ConfigParser.load_config_files(self.files(names)))
        for name, text in self.given.items():
            merge_kv(parser, name, DefaultParseValue(text))
        config: dict[str, Any] = parser.get()
        return config

    def folder(self, fold: int) -> Path:
        """Return the folder of a fold."""
        return self.out / f"fold{fold}"

    def folds(self) -> list[int]:
        """Return the folds of the data list.

        Raises:
            InputError: the cases have no fold.
        """
        listing = read_lists(self.dataset_dir)
        folds = {case["fold"] for case in all_items(listing) if type(case.get("fold")) is int}
        if not folds:
            raise InputError(
                f"{self.dataset_dir / 'dataset.json'}: its cases have no fold; write a list with folds by `python -m "
                "common datalist LAYOUT --root DIR --out LISTS/dataset.json --folds 5`, and give --dataset_dir LISTS"
            )
        return sorted(folds)

    def all_cases(self) -> list[dict[str, Any]]:
        """Return the cases of the data list; files may be missing."""
        modalities, fold = self.config(TRAIN).get("modalities", ()), self.folds()[0]
        # without validation, a fold and the cases outside it are all cases
        sections = [
            load_cases(self.dataset_dir, name, modalities, fold, validation_share=0, allow_missing=True)
            for name in ("training", "test")
        ]
        return [case for cases in sections for case in cases]

    def training(self, fold: int) -> list[str]:
        """Return the command that trains a fold, or continues its training."""
        return self._command(self.files(TRAIN), fold, resume="true")

    def evaluation(self, fold: int) -> list[str]:
        """Return the command that evaluates a trained fold on its test cases."""
        return self._command(self.evaluation_files, fold, output_dir=str(self.folder(fold) / self.scores))

    def _command(self, files: Sequence[str], fold: int, **more: str) -> list[str]:
        known = ConfigParser.load_config_files(files)
        options = {
            "config_file": str(files),
            "bundle_root": str(self.bundle),
            "dataset_dir": str(self.dataset_dir),
            "fold": str(fold),
            "ckpt_dir": str(self.folder(fold)),
            **more,
            **{name: text for name, text in self.given.items() if setting_of(name) in known},
        }
        words = [word for name, text in options.items() for word in _option(name, text)]
        return [sys.executable, "-m", "monai.bundle", "run", *words]

    def dependent_on_fold(self) -> list[str]:
        """Return the used and recorded settings that a training computes from the cases of its fold."""
        config = self.config(TRAIN)
        used = used_settings(config)
        return [key for key in config["recorded"] if key in used and "fold" in _settings_behind(config, key)]


def shown_command(command: Sequence[str]) -> str:
    """Return a command as a user types it in a shell."""
    return " ".join(["python", *map(_quoted, command[1:])])


def _quoted(word: str) -> str:
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _option(name: str, text: str) -> list[str]:
    return [f"--{name}={text}"] if text.startswith("-") or not text else [f"--{name}", text]


def _settings_behind(config: Mapping[str, Any], key: str) -> set[str]:
    """Return the settings that a setting refers to, also through others."""
    behind: set[str] = set()
    ahead = {key}
    while ahead:
        ahead = {name for setting in ahead for name in used_settings({setting: config.get(setting)})} - behind
        behind |= ahead
    return behind
