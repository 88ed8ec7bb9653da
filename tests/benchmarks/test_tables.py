"""Run the benchmarks on small volumes; no time is judged."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from benchmarks import train
from benchmarks.infer import Workload, inverse_resampling, mean_dice, side_by_side
from benchmarks.measure import Row
from benchmarks.metrics import metrics_rows
from benchmarks.train import ITERATIONS, TimedIterations, pipeline_rows
from benchmarks.volumes import ct_volume, ensure_brain
from benchmarks.weights import CONFIGS

CPU = torch.device("cpu")
SMALL = {
    "network_def#channels": [4, 8],
    "network_def#strides": [2],
    "spacing": [9.0, 9.0, 9.0],
    "inferer#roi_size": [16, 16, 16],
    "classes": 3,
}


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """Return a CT of few voxels and a network with random weights that segment something everywhere."""
    folder = tmp_path_factory.mktemp("ct")
    for name, volume in zip(("scan", "truth"), ct_volume(0)):
        (folder / name).mkdir()
        nib.save(nib.Nifti1Image(volume[::8, ::8, ::4], np.diag([-8.0, -8.0, 10.0, 1.0])), folder / name / "ct.nii.gz")
    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_config(CONFIGS / "zoo_ct.json")
    parser.update(SMALL)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "weights.pt")
    zoo, ours, truth = CONFIGS / "zoo_ct.json", CONFIGS / "ours_ct.json", folder / "truth" / "ct.nii.gz"
    return Workload("CT", zoo, ours, folder / "weights.pt", folder / "scan", truth, 3, 0.5, SMALL)


def values(rows: list[Row]) -> dict[str, float]:
    assert all(np.isfinite(r.value) for r in rows)
    return {r.figure: r.value for r in rows}


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*")
def test_both_configurations_give_the_same_labels(workload: Workload, tmp_path: Path) -> None:
    found = values(side_by_side(workload, tmp_path, CPU, 1))
    assert found["CT: float32, equal overlap: voxels with another label"] <= 4
    assert "CT: float32, equal overlap: whole run / its forwards (CPU time)" in found


def test_both_inverse_resamplings_give_the_same_labels(workload: Workload, tmp_path: Path) -> None:
    found = values(inverse_resampling(workload, tmp_path, CPU, 1))
    assert found["CT: inverse resampling and decision: voxels with another label"] <= 2


def test_a_time_without_equal_labels_meets_no_goal(workload: Workload, tmp_path: Path) -> None:
    """Our configuration clips intensities in another way here."""
    other = tmp_path / "ours.json"
    other.write_text(workload.ours.read_text().replace('"a_min": -175', '"a_min": -600'))
    rows = side_by_side(dataclasses.replace(workload, ours=other), tmp_path, CPU, 1)
    judged = [r for r in rows if r.goal is not None and "float32" in r.figure]
    assert judged and not any(r.met for r in judged)


def test_mean_dice_averages_the_classes_of_the_truth() -> None:
    truth, prediction = np.array([1, 1, 2, 0]), np.array([1, 0, 2, 3])
    assert mean_dice(prediction, truth, 4) == pytest.approx((2 / 3 + 1) / 2)


def test_cached_cases_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SAMPLES", 1)
    rows = pipeline_rows(*ensure_brain(tmp_path, (170, 140, 120)), repeats=1)
    assert [r.met for r in rows[:2]] == [True, True]
    values(rows)


def test_every_iteration_is_timed() -> None:
    block = TimedIterations(CPU)
    trainer = Engine(lambda engine, batch: time.sleep(0.01))
    block.attach(trainer)
    trainer.run([0] * ITERATIONS)
    assert block.cost.wall >= 0.01 * ITERATIONS


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*")
def test_scores_are_compared() -> None:
    rows = metrics_rows(CPU, 1, (60, 60, 40))
    assert rows[0].met
    values(rows)
