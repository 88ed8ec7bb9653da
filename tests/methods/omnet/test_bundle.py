"""Test what only OM-Net's bundle has: labels of tumour parts, label codes, cases without a tumour."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial import cKDTree

from common.engines.training_folder import STATE_FILE
from common.errors import root_cause
from common.methods.omnet import OMNet
from common.reporting import read_scores

from ...workflows import assert_label_maps
from .label_maps import REGIONS, assert_equal_maps, files_of, labels_of
from .tiny import OMNET


def test_train_evaluate_infer(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    workflow(OMNET, "train").run()
    models = tmp_path / "models"
    assert {p.name for p in models.glob("*.pt")} == {"model.pt", STATE_FILE}
    log = (models / "train.log").read_text()
    assert "stage 'one-pass', epoch 4" in log and "training is complete after 4 epochs" in log
    OMNet(channels=(2, 4)).load_state_dict(torch.load(models / "model.pt", weights_only=True))

    workflow(OMNET, "train", "evaluate").run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    tests = sorted(p.name for p in (cohort(OMNET) / "labels").iterdir())[-2:]
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    scores = ("Dice", "PPV", "sensitivity", "HD95")
    assert list(rows[0]) == ["case", *(f"{score} {region}" for score in scores for region in REGIONS)]

    workflow(OMNET, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(OMNET) / "labels", tests, {0, 1, 2, 4})


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: float) -> float:
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (prediction, truth)]
    return max(np.percentile(cKDTree(a).query(b)[0], 95) for a, b in (points, points[::-1]))


def test_the_scores_are_those_of_the_label_maps(
    workflow: Callable, infer: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    workflow(OMNET, "train", "evaluate").run()
    maps = infer("masks")
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert len(rows) == len(maps) == 2
    for row in rows:
        prediction, truth = maps[row["case"]], labels_of(cohort(OMNET) / "labels" / f"{row['case']}.nii.gz")
        assert set(np.unique(prediction)) == {0, 1, 2, 4}
        for region, values in REGIONS.items():
            p, t = np.isin(prediction, values), np.isin(truth, values)
            if not t.any():
                assert (row[f"Dice {region}"], row[f"PPV {region}"], row[f"HD95 {region}"]) == (0, 0, 373.13)
                continue
            both = (p & t).sum()
            assert row[f"Dice {region}"] == pytest.approx(2 * both / (p.sum() + t.sum()), abs=1e-5)
            assert row[f"PPV {region}"] == pytest.approx(both / p.sum(), abs=1e-5)
            assert row[f"sensitivity {region}"] == pytest.approx(both / t.sum(), abs=1e-5)
            assert row[f"HD95 {region}"] == pytest.approx(hd95(p, t, 4.0), abs=1e-3)


def test_a_user_chooses_the_label_code(infer: Callable, busy: Path) -> None:
    brats, brats2023 = infer("brats"), infer("brats2023", label_code="brats2023")
    assert all(set(np.unique(labels)) == {0, 1, 2, 3} for labels in brats2023.values())
    assert_equal_maps({case: np.where(labels == 4, 3, labels) for case, labels in brats.items()}, brats2023)


def test_the_values_of_the_mask_are_those_of_the_labels(infer: Callable, busy: Path) -> None:
    names = ("necrosis and non-enhancing tumour", "oedema", "enhancing tumour")
    brats = infer("brats")
    others = infer("others", labels=dict(zip(names, (7, 5, 9))))
    assert_equal_maps({case: np.array([0, 7, 5, 0, 9])[labels] for case, labels in brats.items()}, others)


def test_a_label_map_in_place_of_a_code(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    """Map to the values of ``labels`` and ignore a code that the case names."""
    shutil.copytree(cohort(OMNET), tmp_path / "data")
    workflow(OMNET, "train", "evaluate", output_dir=str(tmp_path / "before")).run()
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        values = np.array([0, 10, 11, 0, 3], np.uint8)[np.asarray(label.dataobj)]
        nib.save(nib.Nifti1Image(values, label.affine), path)
    options = {"dataset_dir": str(tmp_path / "data"), "label_map": {"10": 1, "11": 2, "3": 4}}
    workflow(OMNET, "train", "evaluate", **options).run()
    scores = [read_scores(tmp_path / folder / "scores.csv") for folder in ("before", "out")]
    assert scores[0] == scores[1] and scores[0][0]["Dice complete"] > 0


def test_every_case_is_scored_by_its_own_code(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    labels = sorted((cohort(OMNET) / "labels").iterdir())
    path = next(path for path in labels if set(np.unique(labels_of(path))) == {0, 1, 2, 4})
    files, label = files_of(cohort(OMNET), path.name.removesuffix(".nii.gz")), nib.load(path)
    codes = {"brats": (1, 2, 4), "brats2015": (3, 2, 4), "brats2023": (1, 2, 3), "msd_task01": (2, 1, 3)}
    items = []
    for code, (necrosis, oedema, enhancing) in codes.items():
        values = np.array([0, necrosis, oedema, 0, enhancing], np.uint8)[np.asarray(label.dataobj)]
        nib.save(nib.Nifti1Image(values, label.affine), tmp_path / f"{code}.nii.gz")
        case = {"case": code, "image": [str(f) for f in files.values()], "label": f"{code}.nii.gz"}
        items.append(case if code == "brats" else {**case, "label_code": code})  # that of the config
    items.append({**items[0], "case": "another code", "label_code": "brats2023"})
    (tmp_path / "dataset.json").write_text(json.dumps({"test": items}))

    with pytest.raises(RuntimeError) as error:
        workflow(OMNET, "train", "evaluate", dataset_dir=str(tmp_path)).run()
    assert str(error.value.__cause__).startswith("1 of 5 cases failed: another code (")
    assert "values 4, but label_code brats2023 has 0, 1, 2, 3" in (tmp_path / "out" / "evaluate.log").read_text()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert len({row.pop("case") for row in rows}) == 4
    assert rows[1:] == rows[:1] * 3
    assert rows[0]["Dice enhancing"] > 0


def test_a_case_without_tumour_counts(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    shutil.copytree(cohort(OMNET), tmp_path / "data")
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    workflow(OMNET, "train", "evaluate", dataset_dir=str(tmp_path / "data")).run()
    for row in read_scores(tmp_path / "out" / "scores.csv"):
        assert [row[f"{score} complete"] for score in ("Dice", "PPV", "sensitivity", "HD95")] == [0, 0, 0, 373.13]


def test_a_training_without_tumours_is_refused(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    shutil.copytree(cohort(OMNET), tmp_path / "data")
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    with pytest.raises(RuntimeError) as error:
        workflow(OMNET, "train", dataset_dir=str(tmp_path / "data")).run()
    assert "none of 3 training cases has a voxel of 'core'" in str(root_cause(error.value))
