"""Train, infer and evaluate with two processes. They share three cases, so that one process gets two."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
from ..warm_python import WarmPython
from ..workflows import BUSY, results_in, write_tiny_overlay

pytestmark = [pytest.mark.ddp, pytest.mark.slow]

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2")
TRAINED = {  # files of weights and number of epochs
    MMFNET: ({"model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt"}, 8),
    OMNET: ({"model.pt"}, 4),
    MAMTLN_CT: ({"model.pt"}, 2),
    MPUNET: ({"model.pt"}, 2),
    MULTIRNET: ({"model.pt"}, 2),
}


def write_three_cases(source: Path, folder: Path) -> Path:
    """Copy the data list of a tiny cohort into another folder, with three cases in every list; return this folder."""
    listing = json.loads((source / "dataset.json").read_text())
    items = [item for section in ("training", "validation", "test") for item in listing[section]]
    for item in items:
        images = item["image"]
        item["image"] = str(source / images) if isinstance(images, str) else [str(source / image) for image in images]
        item["label"] = str(source / item["label"])
    folder.mkdir()
    lists = {"training": items[:3], "validation": items[3:], "test": items[3:]}
    (folder / "dataset.json").write_text(json.dumps({**listing, **lists}))
    return folder


class Runs(NamedTuple):
    """Hold what two processes did.

    Args:
        folder: holds a folder of each training, ``evaluated`` and ``inferred``, each with its ``data`` and results.
        output: standard output of both processes.
        errors: standard error of both processes.
        status: exit status of ``torchrun``.
    """

    folder: Path
    output: str
    errors: str
    status: int


@pytest.fixture(scope="module")
def two_processes(cohort: Callable, tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Runs:
    """Train every bundle, evaluate one, and infer one with a broken case, all in the same two processes.

    Each process imports for seconds. The broken case ends them.
    """
    folder = tmp_path_factory.mktemp("two_processes")
    runs = []

    def add(bundle: Path, name: str, *configs: str, **options: Any) -> Path:
        (folder / name / "models").mkdir(parents=True)
        data = write_three_cases(cohort(bundle), folder / name / "data")
        files = write_tiny_overlay(folder / name, bundle, *configs, "multi_gpu_train")
        options |= {"bundle_root": bundle, "dataset_dir": data, "output_dir": folder / name / "out"}
        options["ckpt_dir"] = folder / name / "models"
        runs.append(["run", f"--config_file={files}", *(f"--{key}={value}" for key, value in options.items())])
        return folder / name

    for bundle in TRAINED:
        add(bundle, bundle.name, "train", updates_per_epoch=1)
    for bundle, name, configs in (
        (MMFNET, "evaluated", ("train", "evaluate")),
        (MULTIRNET, "inferred", ("inference",)),
    ):
        place = add(bundle, name, *configs)
        torch.save(BUSY[bundle.name]().state_dict(), place / "models" / "model.pt")
    listing = json.loads((place / "data" / "dataset.json").read_text())
    listing["test"] += listing["training"]
    broken = place / "broken.nii.gz"
    broken.write_bytes(Path(listing["test"][1]["image"]).read_bytes()[:3000])
    listing["test"][1].update(case="broken", image=str(broken))
    (place / "data" / "dataset.json").write_text(json.dumps(listing))
    (folder / "runs.json").write_text(json.dumps(runs))
    command = [sys.executable, "-m", *TORCHRUN, str(Path(__file__).with_name("bundle_runs.py"))]
    done = warm_python.run([*command, str(folder / "runs.json")], folder)
    return Runs(folder, done.stdout, done.stderr, done.returncode)


def test_two_processes_train(two_processes: Runs) -> None:
    for bundle, (files, epochs) in TRAINED.items():
        models = two_processes.folder / bundle.name / "models"
        assert {p.name for p in models.glob("*.pt")} == {*files, STATE_FILE}, two_processes.errors
        BUSY[bundle.name]().load_state_dict(torch.load(models / "model.pt", weights_only=True))
        log = (models / "train.log").read_text()
        assert log.count(f"training is complete after {epochs} epochs") == 1, log
        losses = re.findall(r"training loss (\S+), .*?(\S+) \(best", log)
        assert len(losses) == epochs and np.isfinite(np.array(losses, float)).all(), log


def test_two_processes_infer_as_one_does(two_processes: Runs, workflow: Callable, tmp_path: Path) -> None:
    """Report a failed case once; the masks and classes of the others are equal, bit for bit."""
    folder, output, errors, status = two_processes
    folder = folder / "inferred"
    assert status == 1
    assert errors.count("1 of 6 cases failed: broken (") == 1
    assert errors.count("1 of 6 cases failed; the first process names them") == 1
    assert (output + errors).count("case broken: ") == 1
    assert "5 of 6 cases done" in (folder / "out" / "inference.log").read_text()

    with pytest.raises(RuntimeError) as error:
        workflow(MULTIRNET, "inference", dataset_dir=str(folder / "data"), ckpt_dir=str(folder / "models")).run()
    assert str(error.value.__cause__).startswith("1 of 6 cases failed: broken (")
    one, two = (
        {name: place / name for name in results_in(place) if not name.endswith(".log")}
        for place in (tmp_path / "out", folder / "out")
    )
    assert one.keys() == two.keys() and len(one) == 10
    records = [
        {path.name: _without_times(json.loads(path.read_text())) for path in place.glob("*_seg.json")}
        for place in (tmp_path / "out", folder / "out")
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


def test_two_processes_give_the_same_scores_as_one(two_processes: Runs, workflow: Callable, tmp_path: Path) -> None:
    folder = two_processes.folder / "evaluated"
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(folder / "data"), ckpt_dir=str(folder / "models")).run()
    one, two = (read_scores(place / "out" / "scores.csv") for place in (tmp_path, folder))
    assert len(one) == 3
    assert two == one


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if not key.endswith("seconds")}
