"""Test plans for made cases: labels, channels, grid, intensities, patch and length."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.data import load_cases
from common.errors import InputError
from common.planning import plan_training, write_plan
from common.planning.cases import CaseFacts, measure_cases
from common.planning.choices import (
    Cost,
    choose_augmentation,
    choose_intensity,
    choose_length,
    choose_patch,
    choose_spacing,
    median_shape,
)
from common.planning.cost import update_cost
from common.planning.labels import name_channels, name_labels

from ..tiny import BUNDLES

pytestmark = pytest.mark.slow


def fact(**changes: Any) -> CaseFacts:
    values = {
        "shape": (20, 30, 10), "spacing": (1.0, 1.0, 2.0), "orientation": "RAS", "values": (1,),
        "foreground": np.zeros((5, 1), np.float32), "zeros": 0.0, "is_ct": False,
    }  # fmt: skip
    return CaseFacts(**(values | changes))


@pytest.fixture
def data_set(tmp_path: Path) -> Callable[..., Path]:
    """Write an nnU-Net folder of ten cases with three labels and two channels, half of them in LPS."""

    def write(description: dict[str, Any] | None) -> Path:
        rng = np.random.default_rng(0)
        for number in range(10):
            label = np.zeros((12, 10, 8), np.uint8)
            label[2:6, 2:6, 2:6], label[6:9, 2:6, 2:6], label[2:6, 6:9, 2:6] = 1, 2, 5
            flip = -1 if number % 2 else 1
            affine = np.diag([flip * 1.1, flip * 0.9, 2.3, 1])
            for channel in range(2):
                image = (rng.normal(100, 20, label.shape) + 50 * label).astype(np.float32)
                _save(image, affine, tmp_path / "imagesTr" / f"case_{number:02}_{channel:04}.nii.gz")
            _save(label, affine, tmp_path / "labelsTr" / f"case_{number:02}.nii.gz")
        if description is not None:
            (tmp_path / "dataset.json").write_text(json.dumps(description))
        return tmp_path

    return write


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


NNUNET = {
    "channel_names": {"0": "T1", "1": "T2"},
    "labels": {"background": 0, "core": 1, "rim": 2, "cyst": 5},
    "numTraining": 10,
    "file_ending": ".nii.gz",
}


def test_an_nnunet_folder_is_dealt_to_the_same_five_folds(data_set: Callable[..., Path]) -> None:
    root = data_set(NNUNET)
    lists = {
        fold: {section: [c["case"] for c in load_cases(root, section, fold=fold)] for section in ("training", "test")}
        for fold in range(5)
    }
    assert sorted(name for fold in lists.values() for name in fold["test"]) == [f"case_{n:02}" for n in range(10)]
    assert all(not {*fold["training"]} & {*fold["test"]} for fold in lists.values())
    assert [c["case"] for c in load_cases(root, "test")] == lists[0]["test"]
    (case, *_) = load_cases(root, "training", ["T1", "T2"])
    assert [Path(path).name[-12:] for path in case["image"]] == ["_0000.nii.gz", "_0001.nii.gz"]


def test_the_decathlon_s_list_is_dealt_and_keeps_its_test_scans(data_set: Callable[..., Path]) -> None:
    root = data_set(None)
    training = [
        {"image": f"./imagesTr/case_{n:02}_0000.nii.gz", "label": f"./labelsTr/case_{n:02}.nii.gz"} for n in range(10)
    ]
    listing = {"modality": {"0": "MRI"}, "training": training, "test": ["./imagesTr/case_00_0001.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(listing))
    names = {section: len(load_cases(root, section)) for section in ("training", "validation", "test")}
    assert names == {"training": 6, "validation": 2, "test": 2}


def test_a_plan_of_three_labels_and_two_channels(data_set: Callable[..., Path], tmp_path: Path) -> None:
    plan = plan_training(BUNDLES / "liver_ct_mpunet", data_set(NNUNET), hours=0.01)
    assert plan["labels"] == {"core": 1, "rim": 2, "cyst": 5} and plan["modalities"] == ["T1", "T2"]
    assert plan["normalize"][0]["pixdim"] == [1.1, 0.9, 2.3]
    assert [step["_target_"] for step in plan["check"]] == ["common.transforms.CheckMRId"]
    assert all(size % 8 == 0 for size in plan["roi_size"])
    assert set(plan["reasons"]) == set(plan) - {"_meta_", "reasons"} and all(plan["reasons"].values())
    assert "core, rim, cyst" in plan["_meta_"]["name"] and "liver" not in json.dumps(plan).lower().replace(
        "the published crop is for the slices of the liver", ""
    )
    write_plan(plan, tmp_path / "plan.json")
    config = ConfigParser.load_config_files(
        [str(BUNDLES / "liver_ct_mpunet" / "configs" / "train.json"), str(tmp_path / "plan.json")]
    )
    network = ConfigParser(config).get_parsed_content("network_def")
    assert network.in_channels == 2 and network.head.conv.out_channels == 4


def test_a_network_without_normalisation_gets_a_lower_rate(data_set: Callable[..., Path]) -> None:
    bundle = BUNDLES / "liver_ct_mpunet"
    unet = bundle / "configs" / "ablations" / "unet.json"
    plan = plan_training(bundle, data_set(NNUNET), 0.01, fold=0, overlay=unet)
    assert plan["learning_rate"] == 1e-4 and "normalisation" in plan["reasons"]["learning_rate"]


def test_an_edited_plan_is_not_replaced(tmp_path: Path) -> None:
    write_plan({"max_epochs": 3}, tmp_path / "plan.json")
    write_plan({"max_epochs": 3}, tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"plan\.json"):
        write_plan({"max_epochs": 4}, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == {"max_epochs": 3}


def test_facts_are_in_the_axes_of_ras(data_set: Callable[..., Path]) -> None:
    root = data_set(NNUNET)
    facts = measure_cases(load_cases(root, "training"), ["T1", "T2"])
    assert {found.orientation for found in facts} == {"RAS", "LPS"}
    for found in facts:
        assert found.shape == (12, 10, 8) and found.spacing == pytest.approx((1.1, 0.9, 2.3))
        assert found.values == (1, 2, 5) and found.foreground.shape[1] == 2 and not found.is_ct


def test_names_of_labels_and_regions(tmp_path: Path) -> None:
    def named(labels: Any) -> tuple:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        return name_labels(tmp_path, [fact(values=(1, 2))])[:2]

    assert named({"0": "background", "1": "a", "2": "b"}) == ({"a": 1, "b": 2}, {})
    assert named({"background": 0, "b": 2, "a": 1}) == ({"a": 1, "b": 2}, {})
    assert named({}) == ({"label 1": 1, "label 2": 2}, {})
    labels, regions = named({"background": 0, "whole": [1, 2], "core": 2})
    assert labels == {"label 1": 1, "label 2": 2} and regions == {"whole": ["label 1", "label 2"], "core": ["label 2"]}
    with pytest.raises(InputError, match="values 1, 2, but labels are a 1; name 2"):
        named({"0": "background", "1": "a"})


def test_voxels_to_ignore_are_refused(tmp_path: Path) -> None:
    def named(labels: Any) -> tuple:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        return name_labels(tmp_path, [fact(values=(1, 2))])[:2]

    assert named({"background": 0, "a": 1, "b": 2, "ignore": 3}) == ({"a": 1, "b": 2}, {})
    for labels in ({"background": 0, "a": 1, "ignore": 2}, {"background": 0, "a": [1], "all": [1, 3], "ignore": 2}):
        with pytest.raises(InputError, match="the value 2, ignore, for voxels without annotation"):
            named(labels)
    with pytest.raises(InputError, match=r"dataset.json: labels: .*expected different names"):
        named({"background": 0, "a": 1, "A": 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a JSON object with settings"),
        ({"learningrate": 0.1}, "unknown setting 'learningrate' of .*; did you mean 'learning_rate'"),
        ({"learning_rate": "x"}, "learning_rate is 'x', expected a number above 0"),
        ({"network_def": 3}, "network_def is 3, expected a network"),
    ],
)
def test_a_wrong_overlay_of_a_plan_is_refused(data_set: Callable, tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        plan_training(BUNDLES / "liver_ct_mpunet", data_set(NNUNET), overlay=tmp_path / "mine.json")


def test_a_plan_takes_channels_and_settings_that_are_given(data_set: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps({"max_epochs": 7, "roi_size": [16, 8, 8]}))
    bundle = BUNDLES / "liver_ct_mpunet"
    plan = plan_training(bundle, data_set(None), 0.01, modalities=("A", "B"), overlay=tmp_path / "mine.json")
    assert plan["modalities"] == ["A", "B"] and plan["max_epochs"] == 7 and plan["roi_size"] == [16, 8, 8]


def test_channels_have_the_names_of_the_list_or_numbers(tmp_path: Path) -> None:
    assert name_channels(tmp_path, {"case": "a"}, 1) == ["image"]
    assert name_channels(tmp_path, {"case": "a"}, 2) == ["channel 0", "channel 1"]
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
    assert name_channels(tmp_path, {"case": "a"}, 2) == ["T1", "T2"]
    with pytest.raises(InputError, match=r"names 2 channels .*case a has 1"):
        name_channels(tmp_path, {"case": "a"}, 1)


def test_the_grid_is_the_median_and_finer_along_thick_slices() -> None:
    assert choose_spacing([fact(), fact()]).value == [1.0, 1.0, 2.0]
    mixed = [fact(spacing=(1.0, 1.0, z)) for z in (3.0, 4.0, 5.0, 5.0, 6.0)]
    assert choose_spacing(mixed).value == [1.0, 1.0, pytest.approx(3.4)]
    assert median_shape([fact(), fact()], [1, 1, 1]).tolist() == [20, 30, 20]


def test_intensities_of_ct_have_constants_and_others_do_not() -> None:
    voxels = np.linspace(-100, 200, 1001, dtype=np.float32)[:, None]
    ct = [fact(foreground=voxels, is_ct=True)]
    for names in (["CT"], ["image"]):
        check, step = choose_intensity(ct, names)
        assert check.value[0]["_target_"].endswith("CheckHounsfieldd")
        assert step.value["intensity"]["low"] == pytest.approx(-98.5) and step.value["intensity"]["sd"] > 0
    check, step = choose_intensity(ct, ["T1", "T2"])
    assert check.value[0]["_target_"].endswith("CheckMRId") and not step.value["nonzero"]
    assert choose_intensity([fact(zeros=0.6)], ["T1"])[1].value["nonzero"]


def test_the_patch_shrinks_until_an_update_fits() -> None:
    def cost(patch: list[int], batch: int) -> Cost:
        return Cost(batch * float(np.prod(patch)) / 1e5, 100 * int(np.prod(patch)))

    shape = np.array([35.0, 50.0, 36.0])
    whole, batch, _ = choose_patch(shape, [8, 8, 8], 10**9, 1e9, cost)
    assert whole.value == [40, 56, 40] and batch.value == 4 and "median case" in whole.reason
    small, _, found = choose_patch(shape, [8, 8, 8], 10**9, 1.0, cost)
    assert found.seconds <= 1.0 and all(size % 8 == 0 for size in small.value) and "fits" in small.reason
    with pytest.raises(InputError, match="smallest patch, 24 x 16 x 16 voxels, needs 614400 bytes, but 1 bytes"):
        choose_patch(shape, [8, 8, 8], 1, 1e9, cost)
    least, *_ = choose_patch(shape, [8, 8, 8], 10**9, 1e-9, cost)
    assert least.value == [24, 16, 16]  # three coarsest voxels along x


def test_an_update_beyond_the_memory_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    train = BUNDLES / "liver_ct_mpunet" / "configs" / "train.json"
    parser = ConfigParser(ConfigParser.load_config_file(str(train)))
    monkeypatch.setattr("common.planning.cost.sample_training", lambda *_: pytest.fail("it was made"))
    cost = update_cost(parser, [512, 512, 512], 2, 10**9)
    assert cost.seconds == 0 and cost.memory > 10**11


def test_the_length_fits_the_hours() -> None:
    length = choose_length(1.0, Cost(1.0, 0), batch=4, cases=16)
    total = length["max_epochs"].value * length["updates_per_epoch"].value
    assert 0.85 * 3240 <= total <= 3240
    assert length["max_epochs"].value % length["val_interval"].value == 0
    assert "seldom suffice" in choose_length(0.01, Cost(1.0, 0), 4, 16)["max_epochs"].reason


def test_thick_slices_are_tilted_less() -> None:
    thin, thick = (
        next(step for step in choose_augmentation(spacing).value if step["_target_"] == "RandAffined")
        for spacing in ([1, 1, 1], [1, 1, 5])
    )
    assert thick["rotate_range"][0] < thin["rotate_range"][0] == thin["rotate_range"][2]


def test_a_bundle_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plan\.json: no such file"):
        plan_training(BUNDLES / "brain_mri_omnet", tmp_path)
