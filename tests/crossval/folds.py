"""Write a data list with folds, and run folds that end at once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from common.child import Ended
from common.engines import save_whole
from common.record import RunRecord, made_by
from common.record.identity import case_identities
from common.reporting import class_row, write_class_scores, write_scores

from ..tiny import BUNDLES

CT = BUNDLES / "liver_ct_mpunet"


def write_list(folder: Path, cases: int = 6, folds: int = 3) -> Path:
    """Write cases with the values of their numbers, and their data list; return the folder."""
    folder.mkdir()
    listed = []
    for i in range(cases):
        for kind in ("image", "label"):
            nib.save(nib.Nifti1Image(np.full((2, 2, 2), i, np.uint8), np.eye(4)), folder / f"{kind}{i}.nii.gz")
        own = {"case": f"P{i}", "image": f"image{i}.nii.gz", "label": f"label{i}.nii.gz", "class": "positive"}
        listed.append({**own, "fold": i % folds, "order": i})
    (folder / "dataset.json").write_text(json.dumps({"training": listed}))
    return folder


def options_of(command: Sequence[str]) -> dict[str, str]:
    """Return the options of a command in the form ``--name value``."""
    return {name[2:]: value for name, value in itertools.pairwise(command) if name.startswith("--")}


class FakeRuns:
    """Write what the runs of folds would write, and note them.

    Args:
        failing: titles of runs that fail, such as ``train 1``.
        classes: whether an evaluation also writes classes.
    """

    def __init__(self, failing: Sequence[str] = (), classes: bool = False) -> None:
        self.failing = set(failing)
        self.classes = classes
        self.done: list[str] = []
        self.settings: dict[str, Any] = {"roi_size": [8, 8, 8], "network_def": {"_target_": "a.Net", "width": 2}}

    def __call__(self, command: Sequence[str]) -> Ended:
        options = options_of(command)
        kind, fold = "evaluate" if "evaluate.json" in options["config_file"] else "train", int(options["fold"])
        self.done.append(f"{kind} {fold}")
        if self.done[-1] in self.failing:
            return Ended(3, "every case failed")
        folder = Path(options["ckpt_dir"])
        if kind == "train":
            self.train(folder, fold)
        else:
            self.evaluate(Path(options["output_dir"]), fold, made_by(folder / "model.pt"))
        return Ended(0, "")

    def train(self, folder: Path, fold: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_whole({"w": torch.full((2,), float(fold))}, folder / "model.pt")
        cases = case_identities([{"case": f"P{i}"} for i in range(6)])
        RunRecord(
            bundle={"name": "x", "version": "1.0.0"},
            settings=self.settings,
            training={},
            fold=fold,
            seed=0,
            scans={},
            train_cases=[case for i, case in enumerate(cases) if i % 3 != fold],
            validation_cases=[],
            test_cases=[case for i, case in enumerate(cases) if i % 3 == fold],
            versions={},
            command=f"train {fold}",
        ).write(folder)

    def evaluate(self, folder: Path, fold: int, origin: dict[str, str]) -> None:
        cases = [i for i in range(6) if i % 3 == fold]
        write_scores(
            [{"case": f"P{i}", "Dice liver": i / 8, "volume (ml)": 1.0} for i in cases], folder / "scores.csv", origin
        )
        if self.classes:
            rows = [
                class_row(f"P{i}", i % 2, {"class": "positive", "probabilities": {"negative": 0.25, "positive": 0.75}})
                for i in cases
            ]
            write_scores(rows, folder / "classes.csv", origin)
            write_class_scores({"accuracy": 0.5}, folder / "class_scores.csv", origin)
