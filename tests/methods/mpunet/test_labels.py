"""Test MPU-Net with other labels from training to the mask, and label maps that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run as bundle_run

from common.errors import root_cause
from common.reporting import read_scores

from .tiny import MPUNET, TINY


@pytest.fixture
def three(cohort: Callable, tmp_path: Path) -> Path:
    """Write livers with tumours and, as a third structure, the upper part of each liver."""
    shutil.copytree(cohort(MPUNET), tmp_path / "three")
    for path in (tmp_path / "three" / "labels").iterdir():
        label = nib.load(path)
        values = np.asarray(label.dataobj).copy()
        cut = np.argwhere(values == 1)[:, 2].max() - 1
        values[:, :, cut:][values[:, :, cut:] == 1] = 3
        nib.save(nib.Nifti1Image(values, label.affine), path)
    return tmp_path / "three"


def test_three_labels_from_training_to_the_mask(workflow: Callable, three: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "labels": {"liver": 1, "tumour": 2, "cyst": 5},
        "label_map": {3: 5},
        "dataset_dir": str(three),
    }
    workflow(MPUNET, "train", **settings).run()
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert state["head.conv.weight"].shape[0] == 4
    torch.manual_seed(1)
    busy = {
        k: torch.randn_like(v) * 9 if k.endswith("head.conv.weight") or "heads" in k else v for k, v in state.items()
    }
    torch.save(busy, tmp_path / "models" / "busy.pt")
    settings["weights"] = str(tmp_path / "models" / "busy.pt")
    workflow(MPUNET, "train", "evaluate", **settings).run()
    row = read_scores(tmp_path / "out" / "scores.csv")[0]
    assert [name for name in row if name.startswith("Dice")] == ["Dice liver", "Dice tumour", "Dice cyst"]
    flow = workflow(MPUNET, "inference", segments={}, **settings)
    flow.run()
    found = set()
    for path in (tmp_path / "out").glob("*_seg.nii.gz"):
        mask = np.asarray(nib.load(path).dataobj)
        found |= {*np.unique(mask).tolist()}
        truth = np.asarray(nib.load(three / "labels" / path.name.replace("_seg", "")).dataobj)
        (scores,) = (r for r in read_scores(tmp_path / "out" / "scores.csv") if f"{r['case']}_seg.nii.gz" == path.name)
        p, t = mask == 5, truth == 3
        assert scores["Dice cyst"] == pytest.approx(2 * (p & t).sum() / max(p.sum() + t.sum(), 1), abs=1e-5)
    assert found <= {0, 1, 2, 5} and 5 in found


def test_the_default_map_does_not_merge_new_labels(workflow: Callable, three: Path) -> None:
    with pytest.raises(Exception, match=r"labels|load|dataset") as error:
        workflow(MPUNET, "train", labels={"liver": 1, "tumour": 2, "cyst": 3}, dataset_dir=str(three)).run()
    message = str(root_cause(error.value))
    assert message.startswith("label_map: 2 to 1") and "tumour 2" in message
    assert '--label_map "{}"' in message


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI warns at any config
@pytest.mark.parametrize("typed", ["{1: 1, 2: 1, 3: 1}", '{"1": 1, "2": 1, "3": 1}', "[[1,1],[2,1],[3,1]]"])
def test_a_label_map_as_a_shell_passes_it(
    config_files: Callable,
    three: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Run without the option, then with it in the form that the message gives and in two others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["common"])
    command = ["--config_file", str(config_files(MPUNET, "train", "evaluate")), "--bundle_root", str(MPUNET)]
    command += ["--dataset_dir", str(three), "--output_dir", str(tmp_path / "out"), "--weights", "untrained"]
    command += ["--logging_file", "False"]
    with pytest.raises(RuntimeError):
        fire.Fire(bundle_run, command=command)
    assert "0, 1, 2, 3" in caplog.text and '--label_map "{1: 1, 2: 1, 3: 1}"' in caplog.text
    fire.Fire(bundle_run, command=[*command, "--label_map", typed])
    assert [*read_scores(tmp_path / "out" / "scores.csv")[0]][1] == "Dice liver"


def test_a_data_list_of_another_organ_gives_a_warning(
    workflow: Callable, cohort: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert TINY.phantom.labels == {1: "liver", 2: "tumour"}
    workflow(MPUNET, "train").parser.get_parsed_content("load")
    assert "its labels" not in caplog.text
    listing = json.loads((cohort(MPUNET) / "dataset.json").read_text())
    listing["labels"] = {"background": 0, "kidney": 1, "cyst": 2}
    (tmp_path / "dataset.json").write_text(json.dumps(listing))
    workflow(MPUNET, "train", dataset_dir=str(tmp_path)).parser.get_parsed_content("load")
    assert "1 kidney, 2 cyst where `labels` has liver" in caplog.text
