"""Test what only MA-MTLN's bundle has: a class per case, intensity statistics, single tasks, explanations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import OneOf
from scipy import ndimage

from common.engines.training_folder import STATE_FILE
from common.errors import root_cause
from common.methods.mamtln import MAMTLN, ReleasedJaccardFocalLoss
from common.reporting import read_class_scores, read_scores

from ...workflows import assert_class_maps, assert_label_maps, overlay, parameters, results_in
from ...workflows import parser_of as configs_of
from .tiny import INTENSITY, MAMTLN_CT

CLASSES = ["negative", "positive"]
# Parameters of the network, its attentions and supervised stages, and the weighting of the tasks.
PARTS = ("va", "asa", "ta", "sds")
ABLATIONS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "baseline": (4_501_595, (), "equal"),
    "va": (7_006_450, ("va",), "equal"),
    "asa": (5_983_545, ("asa",), "equal"),
    "ta": (4_518_235, ("ta",), "equal"),
    "va_asa": (8_488_400, ("va", "asa"), "equal"),
    "va_asa_ta": (8_505_040, ("va", "asa", "ta"), "equal"),
    "equal_weights": (8_743_447, PARTS, "equal"),
    "asa_refine": (9_663_267, PARTS, "uncertainty"),
    "released_loss": (8_743_447, PARTS, "equal"),
    "released": (9_663_267, PARTS, "equal"),
    "segmentation_only": (8_275_087, PARTS, "uncertainty"),
    "classification_only": (8_254_154, PARTS, "uncertainty"),
    "lits": (8_275_282, PARTS, "uncertainty"),
}
FOCAL = [  # gamma, alpha, eta of the paper's Table II without the defaults
    *((0.2, 0.75, eta) for eta in (0.01, 0.1)),
    *((0.5, 0.5, eta) for eta in (0.01, 0.1)),
    (1.0, 0.2, 0.01),
    *((2.0, 0.2, eta) for eta in (0.01, 0.1)),
]


def focal_name(gamma: float, alpha: float, eta: float) -> str:
    return f"focal_{gamma:g}_{alpha:g}_{eta:g}".replace(".", "p")


def parser_of(*names: str) -> ConfigParser:
    parser = configs_of(MAMTLN_CT, *names)
    parser["intensity"] = INTENSITY
    return parser


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    folder = busy_weights(MAMTLN_CT)
    (folder / "intensity.json").write_text(json.dumps(INTENSITY))
    return folder


def test_the_defaults_are_the_papers() -> None:
    """Compare network and loss with section III of the paper, data and training with V-A."""
    parser = parser_of("train")
    network, (stage,) = parser.get_parsed_content("network_def"), parser.get_parsed_content("stages")
    assert parameters(network) == 8_743_447 and network.dense
    assert (stage.max_epochs, stage.weights, stage.patience) == (1000, "model.pt", None)
    optimizer, plateau = stage.start_optimizer()
    assert (plateau.factor, plateau.patience, plateau.threshold) == (0.2, 10, 1e-3)
    assert (plateau.smoothing, plateau.lowest) == (0.93, 1e-9)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (2e-4, 2e-5, True)
    settings = {
        "batch_size": 2,
        "updates_per_epoch": 300,
        "spacing": [0.741, 0.741, -1],
        "roi_size": [256, 256, 24],
        "classes": CLASSES,
        "positive": "positive",
        "task": "both",
    }
    assert {key: parser.get_parsed_content(key) for key in settings} == settings
    loss = parser.get_parsed_content("loss")
    assert loss.stage_weights == {"aux_va": 0.8, "aux_asa": 0.9, "seg": 1.0}
    assert loss.log_variances.shape == (2,)
    assert (loss.seg_loss.focal.alpha, loss.seg_loss.focal.gamma, loss.seg_loss.eta) == (0.2, 1.0, 0.1)


def test_every_ablation_is_in_the_tables() -> None:
    files = {file.stem for file in (MAMTLN_CT / "configs").glob("[at]*/*.json")}
    assert files == {*ABLATIONS, *(focal_name(*values) for values in FOCAL)}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_the_papers(name: str) -> None:
    """Compare parts and weighting with the rows of Tables I, III and VII."""
    count, parts, weighting = ABLATIONS[name]
    parser = parser_of("train", overlay(MAMTLN_CT, name))
    network = parser.get_parsed_content("network_def")
    assert parameters(network) == count
    assert parser["weighting"] == weighting
    supervised = "sds" in parts and name != "classification_only"
    assert [network.va is not None, network.asa is not None, network.aux_va is not None] == [
        "va" in parts,
        "asa" in parts,
        supervised,
    ]
    weights = parser.get_parsed_content("loss").log_variances
    assert (weights is None) == (weighting == "equal" or parser["task"] != "both")


@pytest.mark.parametrize(("gamma", "alpha", "eta"), FOCAL)
def test_the_grid_of_the_focal_loss_is_the_papers(gamma: float, alpha: float, eta: float) -> None:
    """Compare gamma, alpha and eta with Table II."""
    parser = parser_of("train", f"ablations/{focal_name(gamma, alpha, eta)}")
    loss = parser.get_parsed_content("loss")
    assert (loss.seg_loss.focal.gamma, loss.seg_loss.focal.alpha, loss.seg_loss.eta) == (gamma, alpha, eta)
    assert loss.log_variances is None


@pytest.mark.parametrize(("name", "lowest"), [("released_loss", 1e-9), ("released", 1e-6)])
def test_an_ablation_has_the_released_loss(name: str, lowest: float) -> None:
    parser = parser_of("train", f"ablations/{name}")
    loss = parser.get_parsed_content("loss").seg_loss
    assert isinstance(loss, ReleasedJaccardFocalLoss)
    assert (loss.alpha, loss.gamma, loss.eta) == (0.8, 1.0, 0.1)
    (stage,) = parser.get_parsed_content("stages")
    assert stage.start_optimizer()[1].lowest == lowest


@pytest.mark.slow
def test_gamma_is_below_1_in_half_of_the_draws() -> None:
    """Read it from three values of a patch without a change of the scale: 0, 1/2 and 1."""
    contrast = next(step for step in parser_of("train").get_parsed_content("augment") if isinstance(step, OneOf))
    contrast.set_random_state(0)
    image = torch.tensor([0.0, 0.5, 1.0] * 9).reshape(1, 3, 3, 3)
    middles = []
    for _ in range(1500):
        low, middle, high = contrast({"image": image.clone()})["image"].flatten()[:3].tolist()
        middles.append((middle - low) / (high - low))
    changed = np.log([m for m in middles if abs(m - 0.5) > 1e-5]) / np.log(0.5)
    assert len(changed) / 1500 == pytest.approx(0.3, abs=0.04)
    assert changed.min() > 0.7 and changed.max() < 1.5
    assert (changed < 1).mean() == pytest.approx(0.5, abs=0.07)


def test_train_evaluate_infer(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    workflow(MAMTLN_CT, "train").run()
    models, out = tmp_path / "models", tmp_path / "out"
    assert results_in(models) == {*("model.pt", STATE_FILE, "intensity.json", "run.json", "train.log", "tensorboard")}
    state = torch.load(models / STATE_FILE, weights_only=True)
    assert state["loss"]["log_variances"].shape == (2,) and state["loss"]["log_variances"].abs().min() > 0

    flow = workflow(MAMTLN_CT, "train", "evaluate")
    flow.run()
    rows = read_scores(out / "scores.csv")
    tests = sorted(p.name for p in (cohort(MAMTLN_CT) / "labels").iterdir())[-2:]
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    scores = [
        "Dice",
        "IoU",
        "precision",
        "recall",
        "ASD",
        "ASSD",
        "HD95",
        "ASD (voxels)",
        "ASSD (voxels)",
        "HD95 (voxels)",
    ]
    assert list(rows[0]) == ["case", *(f"{score} tumour" for score in scores)]
    of_classes = read_class_scores(out / "class_scores.csv")
    assert list(of_classes) == ["accuracy", "AUC", "precision", "recall", "specificity", "F1"]
    assert flow.evaluator.state.metrics["class accuracy"] == of_classes["accuracy"]

    workflow(MAMTLN_CT, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(MAMTLN_CT) / "labels", tests, {0, 1})
    listed = (out / "classes.csv").read_text().splitlines()[1:]
    for name, line in zip(tests, listed, strict=True):
        result = json.loads((tmp_path / "masks" / name.replace(".nii.gz", "_class.json")).read_text())
        assert list(result["probabilities"]) == CLASSES
        assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert result["class"] == max(CLASSES, key=result["probabilities"].__getitem__)
        probability = float(line.split(",")[-1])
        assert probability == pytest.approx(result["probabilities"]["positive"], abs=1e-5)  # as in evaluation


@pytest.mark.parametrize("name", ["va_asa", "asa_refine", "segmentation_only", "classification_only"])
def test_an_ablation_trains_and_its_weights_are_used(workflow: Callable, tmp_path: Path, name: str) -> None:
    flow = workflow(MAMTLN_CT, "train", overlay(MAMTLN_CT, name), max_epochs=1)
    before = {key: value.clone() for key, value in flow.network_def.state_dict().items()}
    flow.run()
    after = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    heads = {"segmentation_only": ["seg."], "classification_only": ["cls."]}.get(name, ["seg.", "cls."])
    for part in ("backbone.", *heads):
        assert any(key.startswith(part) for key in changed), part

    workflow(MAMTLN_CT, "train", "evaluate", overlay(MAMTLN_CT, name)).run()
    workflow(MAMTLN_CT, "inference", overlay(MAMTLN_CT, name)).run()
    written = {name for name in results_in(tmp_path / "out") if not name.endswith(".log")}
    of_classes = {"classes.csv", "class_scores.csv", "case_004_class.json", "case_005_class.json"}
    segmented = {"case_004_seg.nii.gz", "case_005_seg.nii.gz"}
    expected = {"segmentation_only": segmented, "classification_only": of_classes}
    assert written - {"scores.csv", "made_by.json"} == expected.get(name, of_classes | segmented)


@pytest.fixture
def livers(cohort: Callable, tmp_path: Path) -> Path:
    """Write the cohort with labels of a liver around each tumour and without classes."""
    shutil.copytree(cohort(MAMTLN_CT), tmp_path / "livers")
    for path in (tmp_path / "livers" / "labels").iterdir():
        label = nib.load(path)
        tumour = np.asarray(label.dataobj) > 0
        liver = ndimage.binary_dilation(tumour, iterations=3)
        nib.save(nib.Nifti1Image((liver + tumour).astype(np.uint8), label.affine), path)
    listing = json.loads((tmp_path / "livers" / "dataset.json").read_text())
    for section in ("training", "validation", "test"):
        for case in listing[section]:
            del case["class"]
    listing["labels"] = {"background": 0, "liver": 1, "tumour": 2}
    (tmp_path / "livers" / "dataset.json").write_text(json.dumps(listing))
    return tmp_path / "livers"


def test_liver_and_tumour(workflow: Callable, livers: Path, tmp_path: Path) -> None:
    """Train and evaluate on data like the paper's second data set: two structures, no class."""
    small: dict[str, Any] = {"dataset_dir": str(livers), "max_epochs": 1}
    workflow(MAMTLN_CT, "train", "tasks/lits", **small).run()
    workflow(MAMTLN_CT, "train", "evaluate", "tasks/lits", **small).run()
    row = read_scores(tmp_path / "out" / "scores.csv")[0]
    assert {"Dice liver", "Dice tumour", "ASSD liver"} <= row.keys()


def test_intensity_statistics_cover_the_training_cases(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    workflow(MAMTLN_CT, "train", intensity="@intensity_statistics", max_epochs=1).run()
    beside_the_list = json.loads((cohort(MAMTLN_CT) / "intensity.json").read_text())
    assert json.loads((tmp_path / "models" / "intensity.json").read_text()) == beside_the_list
    listing = json.loads((cohort(MAMTLN_CT) / "dataset.json").read_text())
    values = []
    for case in listing["training"]:
        image, label = (np.asarray(nib.load(cohort(MAMTLN_CT) / case[key]).dataobj) for key in ("image", "label"))
        values.append(image[label > 0])
    assert beside_the_list["cases"] == len(values) == 3
    low, high = np.percentile(np.concatenate(values), (0.5, 99.5))
    assert [beside_the_list["low"], beside_the_list["high"]] == pytest.approx([low, high])


READ = {"_target_": "common.data.read_intensity", "path": "$@ckpt_dir + '/intensity.json'"}


def test_weights_without_intensity_statistics_are_refused(workflow: Callable, busy: Path) -> None:
    (busy / "intensity.json").unlink()
    with pytest.raises(Exception, match=r".") as error:
        workflow(MAMTLN_CT, "inference", intensity=READ).run()
    assert "intensity.json: no such file; training writes it beside its weights" in str(root_cause(error.value))


def test_a_case_without_a_class_cannot_train(workflow: Callable, cohort: Callable, tmp_path: Path) -> None:
    listing = json.loads((cohort(MAMTLN_CT) / "dataset.json").read_text())
    (tmp_path / "data").mkdir()
    for section in ("training", "validation", "test"):
        for case in listing[section]:
            case.update({key: str(cohort(MAMTLN_CT) / case[key]) for key in ("image", "label")})
            del case["class"]
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(listing))
    with pytest.raises(Exception, match=r".") as error:
        workflow(MAMTLN_CT, "train", dataset_dir=str(tmp_path / "data")).run()
    assert "case_" in str(root_cause(error.value)) and "--classes" in str(root_cause(error.value))


def test_inference_resumes_where_one_of_two_results_is_missing(
    workflow: Callable, busy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflow(MAMTLN_CT, "inference").run()
    _, second = sorted((tmp_path / "out").glob("*_class.json"))
    content = second.read_bytes()
    second.unlink()
    with caplog.at_level("INFO"):
        workflow(MAMTLN_CT, "inference", resume="true").run()
    assert "1 of 2 cases have a result" in caplog.text
    assert second.read_bytes() == content


def test_activation_maps_lie_on_the_grid_of_the_scan(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    workflow(MAMTLN_CT, "inference", "explain").run()
    names = ["case_004.nii.gz", "case_005.nii.gz"]
    assert_class_maps(tmp_path / "out", cohort(MAMTLN_CT) / "labels", names)


def test_inference_loads_all_weights_and_skips_supervision() -> None:
    network = parser_of("inference").get_parsed_content("network_def").eval()
    assert isinstance(network, MAMTLN) and network.dense
    assert network.state_dict().keys() == parser_of("train").get_parsed_content("network_def").state_dict().keys()

    def refuse(*_: object) -> None:
        raise AssertionError("a head of the deep supervision was computed")

    for head in (network.fusion_asa, network.aux_va, network.aux_asa):
        assert head is not None
        head.register_forward_pre_hook(refuse)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 32, 32, 4)).shape == (1, 4, 32, 32, 4)
