"""Run a study: plan, measure, choose the updates, and train and evaluate every arm by the bundle's own commands."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from common.crossval import cross_validate
from common.doctor.measuring import measure_updates, sample_training
from common.errors import InputError
from common.files import MARK, is_own_json, make_folder, read_json, whole_file, write_own_json
from common.planning import plan_training, write_plan

from .cases import FOLD, write_cases
from .statistics import detectable
from .study import Cases, Study

STATE, PLAN = "study.json", "plan.json"
START_UP = 15.0  # s of a command
PLANNED_HOURS = 24.0  # so long that only the memory limits the patch, even on a busy machine
HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """Hold what an arm costs: seconds of an update, and the epochs of its training."""

    seconds: float
    epochs: int


def run_study(
    study: Study, out: Path, dataset_dir: Path | None, seeds: int, hours: float | None, updates: int | None
) -> None:
    """Train and evaluate every arm with every seed; finished ones are left as they are.

    Args:
        study: the study.
        out: folder of the results.
        dataset_dir: folder of real cases, or None for phantoms.
        seeds: number of trainings of each arm.
        hours: time for all arms with one seed on this machine, CPU time without a GPU; None takes that of the study.
        updates: updates of each training; None takes as many as fit ``hours``.

    Raises:
        InputError: the study has no real cases, or the folder began with other options.
        FoldError: a training or an evaluation failed.
    """
    cases = chosen_cases(study, dataset_dir)
    make_folder(out)
    asked = {"study": study.name, "data": cases.name, "hours": study.hours if hours is None else hours}
    state = read_state(out) if (out / STATE).exists() else {}
    for key, value in asked.items():
        given = key != "hours" or (hours is not None and updates is None)
        if state and given and state[key] != value:
            raise InputError(f"{out}: began with {key} {state[key]}, not {value}; choose another --out, or the same")
    say_power(study, cases)
    lists = write_cases(cases, out, dataset_dir)
    base = _base(study, cases, lists, out)
    arms = study.arms_on(cases)
    if not state:
        costs = {arm: _measure(study, _overlays(study, cases, arm, base, out), lists) for arm in arms}
        state = {**asked, "seeds": seeds, "machine": _machine(), "cpu_seconds": {}}
        state["updates"] = _choose_updates(study, cases, costs, asked["hours"], updates)
        state["update_seconds"] = {arm: round(cost.seconds, 3) for arm, cost in costs.items()}
        state["epochs"] = {arm: cost.epochs for arm, cost in costs.items()}
    elif updates is not None and _whole_epochs(updates, state["epochs"][arms[0]]) != state["updates"][arms[0]]:
        raise InputError(
            f"{out}: began with {state['updates'][arms[0]]} updates of {arms[0]}, not {updates}; choose another --out, "
            "or the same"
        )
    state["seeds"] = max(seeds, state["seeds"])
    write_own_json(state, out / STATE)
    print(f"updates of each training: {state['updates']}", flush=True)
    for seed in range(seeds):
        for arm in arms:
            per_epoch = state["updates"][arm] // state["epochs"][arm]
            files = _overlays(study, cases, arm, base, out, per_epoch)
            print(f"\n{study.name}: {arm}, seed {seed}", flush=True)
            before, started = _cpu_seconds(), time.time()
            try:
                cross_validate(
                    study.configs.parent, lists, out / "arms" / arm / f"seed{seed}", files, [FOLD],
                    {"seed": str(seed)}, _say,
                )  # fmt: skip
            finally:
                if time.time() - started > 1:
                    key = f"{arm}/seed{seed}"
                    spent = state["cpu_seconds"].get(key, 0) + _cpu_seconds() - before
                    state["cpu_seconds"][key] = round(spent)
                    write_own_json(state, out / STATE)


def chosen_cases(study: Study, dataset_dir: Path | None) -> Cases:
    """Return the real cases of a study if there is a folder for them, else its phantoms.

    Raises:
        InputError: the study has no real cases.
    """
    if dataset_dir is None:
        return study.phantoms
    if study.real is None:
        raise InputError(f"--dataset_dir {dataset_dir}: {study.name} has no real cases; leave it out for phantoms")
    return study.real


def read_state(out: Path) -> dict[str, Any]:
    """Return what is noted of a study in its folder.

    Raises:
        InputError: the folder does not have a study, or its file was changed.
    """
    file = out / STATE
    if not is_own_json(file):
        raise InputError(f"{file}: not written by a study, or changed since; choose another --out")
    return {key: value for key, value in read_json(file).items() if key != MARK}


def say_power(study: Study, cases: Cases) -> None:
    """Print, for each score, the difference that the study can detect."""
    claims = study.claims_on(cases)
    for name, score in study.scores_on(cases).items():
        tests = sum(claim.score == name for claim in claims)
        least = detectable(score.sd, cases.test, len(claims))
        verdict = "enough for" if least <= score.effect else "more than"
        print(
            f"{study.name}, {cases.name}, {name} ({tests} claims): with a standard deviation of {score.sd:g} over "
            f"{cases.test} test cases, it detects a mean difference of {least:.4f} (power 80 %, Holm over all "
            f"{len(claims)} claims), {verdict} the effect asked for, {score.effect:g}",
            flush=True,
        )


def _base(study: Study, cases: Cases, lists: Path, out: Path) -> Path:
    """Return the first overlay of every arm: one plan of the real cases, or the demo for phantoms."""
    if cases.recipe is not None:
        return study.configs / "demo.json"
    plan = out / PLAN
    if not plan.exists():
        write_plan(plan_training(study.configs.parent, lists, PLANNED_HOURS, FOLD), plan)
    return plan


def _overlays(study: Study, cases: Cases, arm: str, base: Path, out: Path, per_epoch: int = 1) -> list[Path]:
    """Write the settings of an arm, and return its overlays in their order."""
    files = [study.configs / overlay for overlay in study.arms[arm] if isinstance(overlay, str)]
    settings: dict[str, Any] = {"picture_interval": None, "updates_per_epoch": per_epoch, **cases.settings}
    for overlay in study.arms[arm]:
        settings |= {} if isinstance(overlay, str) else overlay
    own = out / "overlays" / f"{arm}.json"
    make_folder(own.parent)
    with whole_file(own) as partial:  # plain, since a run warns of keys that are no setting
        partial.write_text(json.dumps(settings | dict(cases.arms.get(arm, {})), indent=1) + "\n", encoding="utf-8")
    return [base, *files, own]


def _measure(study: Study, files: Sequence[Path], lists: Path) -> Cost:
    """Return the cost of an arm on this machine."""
    parser = ConfigParser(ConfigParser.load_config_files([study.configs / "train.json", *files]))
    run = {"bundle_root": str(study.configs.parent), "dataset_dir": str(lists), "fold": FOLD}
    for key, value in run.items():
        merge_kv(parser, key, value)
    now = time.perf_counter if torch.cuda.is_available() else time.process_time  # a busy machine does not matter
    sample = sample_training(parser, parser.get_parsed_content("batch_size"), now)
    stages = sample.trainer.stages
    seconds = sum(measure_updates(sample, stages[-1], now))
    return Cost(seconds, sum(stage.max_epochs for stage in stages))


def _choose_updates(
    study: Study, cases: Cases, costs: Mapping[str, Cost], hours: float, updates: int | None
) -> dict[str, int]:
    """Return the updates of each arm: the same for all, and as many as fit the time of the first for ``equal_time``.

    Validation and test are taken to cost an update for four cases.

    Raises:
        InputError: arms of equal updates have different epochs, or the time is too short.
    """
    first = next(iter(costs.values()))
    for arm, cost in costs.items():
        if arm not in study.equal_time and cost.epochs != first.epochs:
            raise InputError(f"{study.name}: {cost.epochs} epochs of {arm}, but {first.epochs} of the first arm")
    if updates is None:
        scoring = sum((cases.test + 4 * cases.validation) / 4 * cost.seconds + 2 * START_UP for cost in costs.values())
        update = sum(first.seconds if arm in study.equal_time else cost.seconds for arm, cost in costs.items())
        updates = int((hours * HOUR - scoring) / update)
    if updates < first.epochs:
        raise InputError(
            f"--hours {hours:g}: room for {max(updates, 0)} updates of each arm, expected {first.epochs}, one for each "
            "epoch; give more --hours"
        )
    chosen = {}
    for arm, cost in costs.items():
        ratio = first.seconds / cost.seconds if arm in study.equal_time else 1.0
        chosen[arm] = _whole_epochs(updates * ratio, cost.epochs)
    return chosen


def _whole_epochs(updates: float, epochs: int) -> int:
    """Return the updates of so many equal epochs, at least one for each."""
    return max(1, int(updates / epochs)) * epochs


def _machine() -> str:
    """Return the machine and the versions, for the report."""
    cards = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    return f"{platform.machine()}, {threads} thread(s), {cards}; PyTorch {torch.__version__}, MONAI {monai.__version__}"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _say(line: str) -> None:
    """Print a line of a cross-validation, except what it says on the folds that only train here."""
    if not line.startswith("missing: "):
        print(line, flush=True)
