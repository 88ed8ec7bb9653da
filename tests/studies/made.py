"""Make a study of two arms that trains in seconds, and runs of it that end at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from common.child import Ended
from common.engines import save_whole
from common.record import RunRecord, made_by
from common.reporting import write_scores

from ..crossval.folds import options_of
from ..methods.mpunet.tiny import TINY

SETTINGS = {key: value for key, value in TINY.overlay.items() if key != "updates_per_epoch"}
STUDY: dict[str, Any] = {
    "title": "two arms",
    "bundle": "liver_ct_mpunet",
    "hours": 1.0,
    "scores": {"Dice": {"columns": "Dice", "effect": 0.01, "sd": 0.02}},
    "arms": {"full": [], "no_gates": ["ablations/no_gates.json"]},
    "claims": [{"text": "Gates help", "published": "yes", "first": "full", "second": "no_gates", "score": "Dice"}],
    "phantoms": {
        "name": "tiny torsos",
        "training": 2,
        "validation": 1,
        "test": 8,
        "carries": "Little.",
        "trivial": "Much.",
        "recipe": {
            "_target_": "common.methods.mpunet.LiverPhantom",
            "size": [36, 30, 24],
            "spacing": [10.0, 10.4, 9.7],
            "noise": 2.0,
        },
        "settings": SETTINGS,
    },
}


def write_study(folder: Path, **changes: Any) -> str:
    """Write the definition of the study, and return its path."""
    file = folder / "two_arms.json"
    file.write_text(json.dumps({**STUDY, **changes}))
    return str(file)


class FakeRuns:
    """Write what the runs of an arm would write, and note them; Dice is 0.9 for ``full`` and 0.8 else, less a bit.

    Args:
        interrupted: title of the run that Ctrl-C stops, such as ``train no_gates``.
    """

    def __init__(self, interrupted: str = "") -> None:
        self.interrupted = interrupted
        self.done: list[str] = []

    def __call__(self, command: Sequence[str]) -> Ended:
        options = options_of(command)
        folder = Path(options["ckpt_dir"])
        arm, seed = folder.parts[-3], int(options["seed"])
        kind = "evaluate" if "evaluate.json" in options["config_file"] else "train"
        self.done.append(f"{kind} {arm} {seed}")
        if self.done[-1] == self.interrupted:
            raise KeyboardInterrupt
        if kind == "train":
            self.train(folder, seed)
        else:
            dice = 0.9 if arm == "full" else 0.8
            rows = [{"case": f"case_{i:03}", "Dice liver": dice - (seed + 1) * i / 1000} for i in range(3, 11)]
            write_scores(rows, Path(options["output_dir"]) / "scores.csv", made_by(folder / "model.pt"))
        return Ended(0, "")

    def train(self, folder: Path, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_whole({"w": torch.zeros(2)}, folder / "model.pt")
        cases = [{"case": "case_000", "image": "0", "label": "0"}]
        RunRecord(
            bundle={"name": "x", "version": "1.0.0"},
            settings={"network_def": {"_target_": "a.Net"}},
            training={},
            fold=0,
            seed=seed,
            scans={},
            train_cases=cases,
            validation_cases=[],
            test_cases=[],
            versions={},
            command="train",
        ).write(folder)
