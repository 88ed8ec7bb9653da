"""Train, infer and evaluate with two processes. They share three cases, so that one process gets two."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.engines.training_folder import STATE_FILE
from common.reporting import read_scores

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mmfnet.tiny import MMFNET
from ..methods.mpunet.tiny import MPUNET
from ..methods.multirnet.tiny import MULTIRNET
from ..methods.omnet.tiny import OMNET
from ..workflows import BUSY, results_in

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2")
TRAINED = {  # files of weights and number of epochs
    MMFNET: ({"model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt"}, 8),
    OMNET: ({"model.pt"}, 4),
    MAMTLN_CT: ({"model.pt"}, 2),
    MPUNET: ({"model.pt"}, 2),
    MULTIRNET: ({"model.pt"}, 2),
}


@pytest.fixture
def bundle() -> Path:
    """Return the bundle of the tests with two processes, unless a test sets another one."""
    return MMFNET


def write_three_cases(source: Path, folder: Path) -> Path:
    """List three cases of a tiny cohort in every list of a data list in another folder; return this folder."""
    listing = json.loads((source / "dataset.json").read_text())
    items = [item for section in ("training", "validation", "test") for item in listing[section]]
    for item in items:
        images = item["image"]
        item["image"] = str(source / images) if isinstance(images, str) else [str(source / image) for image in images]
        item["label"] = str(source / item["label"])
    folder.mkdir()
    lists = {"training": items[:3], "validation": items[:3], "test": items[3:]}
    (folder / "dataset.json").write_text(json.dumps({**listing, **lists}))
    return folder


@pytest.fixture
def three_cases(cohort: Callable, tmp_path: Path, bundle: Path) -> Path:
    """Return the folder of the tiny cohort with three cases in every list."""
    return write_three_cases(cohort(bundle), tmp_path / "data")


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_train(command: Callable, bundle_run: Callable, cohort: Callable, tmp_path: Path) -> None:
    """Train every bundle in the same two processes, since each of them imports for seconds."""
    runs = []
    for bundle in TRAINED:
        folder = tmp_path / bundle.name
        data = write_three_cases(cohort(bundle), folder)
        options = {"bundle": bundle, "dataset_dir": data, "ckpt_dir": folder / "models", "updates_per_epoch": 1}
        runs.append(bundle_run("train", "multi_gpu_train", **options)[1:])  # without the name of MONAI's module
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    done = command(*TORCHRUN, str(Path(__file__).with_name("bundle_runs.py")), str(tmp_path / "runs.json"))
    assert done.returncode == 0, done.stderr
    for bundle, (files, epochs) in TRAINED.items():
        models = tmp_path / bundle.name / "models"
        assert {p.name for p in models.glob("*.pt")} == {*files, STATE_FILE}, bundle.name
        BUSY[bundle.name]().load_state_dict(torch.load(models / "model.pt", weights_only=True))
        log = (models / "train.log").read_text()
        assert log.count(f"training is complete after {epochs} epochs") == 1, log
        losses = re.findall(r"training loss (\S+), .*?(\S+) \(best", log)
        assert len(losses) == epochs and np.isfinite(np.array(losses, float)).all(), log


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("bundle", [MULTIRNET], ids=lambda bundle: bundle.name)
def test_two_processes_infer_as_one_does(
    command: Callable,
    bundle_run: Callable,
    workflow: Callable,
    busy_weights: Callable,
    three_cases: Path,
    tmp_path: Path,
    bundle: Path,
) -> None:
    """Report a failed case once; the masks and classes of the others are equal, bit for bit."""
    listing = json.loads((three_cases / "dataset.json").read_text())
    listing["test"] += listing["training"]
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(Path(listing["test"][1]["image"]).read_bytes()[:3000])
    listing["test"][1].update(case="broken", image=str(broken))
    (three_cases / "dataset.json").write_text(json.dumps(listing))
    busy_weights(bundle)
    done = command(*TORCHRUN, "-m", *bundle_run("inference", "multi_gpu_train", bundle=bundle, dataset_dir=three_cases))
    assert done.returncode == 1
    assert done.stderr.count("1 of 6 cases failed: broken (") == 1
    assert done.stderr.count("1 of 6 cases failed; the first process names them") == 1
    assert (done.stdout + done.stderr).count("case broken: ") == 1
    assert "5 of 6 cases done" in (tmp_path / "out" / "inference.log").read_text()

    with pytest.raises(RuntimeError) as error:
        workflow(bundle, "inference", dataset_dir=str(three_cases), output_dir=str(tmp_path / "one")).run()
    assert str(error.value.__cause__).startswith("1 of 6 cases failed: broken (")
    one, two = (
        {name: tmp_path / folder / name for name in results_in(tmp_path / folder) if not name.endswith(".log")}
        for folder in ("one", "out")
    )
    assert one.keys() == two.keys() and len(one) == 10
    records = [
        {path.name: _without_times(json.loads(path.read_text())) for path in (tmp_path / folder).glob("*_seg.json")}
        for folder in ("one", "out")
    ]
    assert len(records[0]) == 6 and records[0] == records[1]
    for name, path in one.items():
        if name.endswith(".json"):
            assert path.read_bytes() == two[name].read_bytes()
        else:
            image, other = nib.load(path), nib.load(two[name])
            np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(other.dataobj))
            assert image.get_data_dtype() == other.get_data_dtype()
            np.testing.assert_array_equal(image.affine, other.affine)
    assert any(np.any(nib.load(path).dataobj) for name, path in one.items() if name.endswith("_seg.nii.gz"))


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_give_the_same_scores_as_one(
    command: Callable, bundle_run: Callable, workflow: Callable, weights: Path, three_cases: Path, tmp_path: Path
) -> None:
    done = command(*TORCHRUN, "-m", *bundle_run("train", "evaluate", "multi_gpu_train", dataset_dir=three_cases))
    assert done.returncode == 0, done.stderr
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(three_cases), output_dir=str(tmp_path / "one")).run()
    one, two = (read_scores(tmp_path / folder / "scores.csv") for folder in ("one", "out"))
    assert len(one) == 3
    assert two == one


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.endswith("seconds")}
