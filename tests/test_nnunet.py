"""Write a data list as a data set of nnU-Net v2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.__main__ import main
from common.data.datalist import write_datalist
from common.errors import InputError
from common.nnunet import label_values, write_nnunet

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
LABELS = {"oedema": 2, "core": 7, "ring": 4}


@pytest.fixture
def listed(tmp_path: Path, write_nifti: Callable) -> Callable[..., Path]:
    """Write cases and their list with three folds; return the folder of the list."""

    def write(names: tuple[str, ...] = ("T1", "T2"), values: tuple[int, ...] = (2, 4, 7), cases: int = 6) -> Path:
        for case in range(cases):
            for number, name in enumerate(names):
                image = np.arange(24, dtype=np.int16).reshape(4, 3, 2) + 100 * number + case
                write_nifti(f"raw/P{case}/{name}.nii.gz", image, AFFINE)
            label = np.zeros((4, 3, 2), np.uint8)
            label.flat[: len(values)] = values
            write_nifti(f"raw/P{case}/seg.nii.gz", label, AFFINE)
        modalities = names if len(names) > 1 else ()
        write_datalist("folders", tmp_path / "raw", tmp_path / "list" / "dataset.json", modalities, folds=3)
        return tmp_path / "list"

    return write


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_cases_labels_and_description_are_those_of_nnunet(listed: Callable, tmp_path: Path) -> None:
    out = tmp_path / "nnUNet_raw" / "Dataset501_Heads"
    count, _ = write_nnunet(listed(), out, ["T1", "T2"], LABELS)
    assert count == 6 and [path.name for path in out.parent.iterdir()] == [out.name]
    assert read(out, "dataset.json") == {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "oedema": 1, "core": 2, "ring": 3},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    names = sorted(path.name for path in (out / "imagesTr").iterdir())
    assert names == [f"P{case}_000{channel}.nii.gz" for case in range(6) for channel in (0, 1)]
    link = out / "imagesTr" / "P3_0001.nii.gz"
    assert link.is_symlink() and link.resolve() == (tmp_path / "raw" / "P3" / "T2.nii.gz").resolve()
    label = nib.load(out / "labelsTr" / "P3.nii.gz")
    assert label.get_data_dtype() == np.uint8
    assert np.asarray(label.dataobj).ravel()[:4].tolist() == [1, 3, 2, 0]  # of 2, 4, 7
    np.testing.assert_allclose(label.affine, AFFINE)


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_splits_test_and_train_on_the_cases_of_a_training(listed: Callable, tmp_path: Path, share: float) -> None:
    _, splits = write_nnunet(listed(), tmp_path / "Dataset501_A", ["T1", "T2"], LABELS, validation_share=share)
    assert read(tmp_path / "Dataset501_A", "splits_final.json") == splits and len(splits) == 3
    for fold, split in enumerate(splits):
        out = tmp_path / f"{fold}.json"
        lists = write_datalist("folders", tmp_path / "raw", out, ("T1", "T2"), 3, fold, validation_share=share)
        assert split == {
            "train": [case["case"] for case in lists["training"]],
            "val": [case["case"] for case in lists["test"]],
        }
        assert len(split["train"]) == (4 if share == 0 else 3)


@pytest.mark.parametrize("share", [0.25, 0.0])
def test_a_fixed_test_set_is_apart_from_the_folds(listed: Callable, tmp_path: Path, share: float) -> None:
    listed()
    folder, out = tmp_path / "list", tmp_path / "Dataset501_A"
    modalities = ("T1", "T2")
    write_datalist("folders", tmp_path / "raw", folder / "dataset.json", modalities, folds=2, test="P4,P1")
    count, splits = write_nnunet(folder, out, modalities, LABELS, validation_share=share)
    assert count == 6 and read(out, "dataset.json")["numTraining"] == 4
    for kind, suffix in (("images", "_0001"), ("labels", "")):
        places = {part: sorted(path.name for path in (out / f"{kind}{part}").iterdir()) for part in ("Tr", "Ts")}
        names = {part: [name for name in found if name.endswith(f"{suffix}.nii.gz")] for part, found in places.items()}
        assert names["Ts"] == [f"P{case}{suffix}.nii.gz" for case in (1, 4)] and len(names["Tr"]) == 4
    trained = {"P0", "P2", "P3", "P5"}
    assert [{*split["train"]} | {*split["val"]} for split in splits] == [trained, trained]
    assert {*splits[0]["val"]} == {*splits[1]["train"]} and len(splits[0]["val"]) == 2
    lists = write_datalist("folders", tmp_path / "raw", tmp_path / "0.json", modalities, 2, 0, test="P4,P1")
    assert splits[0]["val"] == [case["case"] for case in lists["validation"]]


def test_splits_come_back_by_datalist(listed: Callable, tmp_path: Path) -> None:
    out = tmp_path / "Dataset501_A"
    _, splits = write_nnunet(listed(("CT",)), out, ["CT"], LABELS)
    again = tmp_path / "again.json"
    for fold, split in enumerate(splits):
        lists = write_datalist("nnunet", out, again, fold=fold, splits=out / "splits_final.json")
        assert {case["case"] for case in lists["test"]} == set(split["val"])


def test_a_list_without_folds_is_one_split(listed: Callable, tmp_path: Path) -> None:
    folder = listed(("CT",))
    content = read(folder, "dataset.json")
    lists = {
        name: [{key: case[key] for key in ("case", "image", "label")} for case in content[name]]
        for name in ("training", "validation", "test")
    }
    (folder / "dataset.json").write_text(json.dumps(lists))
    _, (split,) = write_nnunet(folder, tmp_path / "Dataset501_A", ["CT"], LABELS)
    assert split["val"] == [case["case"] for case in lists["test"]]
    assert split["train"] == [case["case"] for case in lists["training"]]


def test_channels_of_one_file_are_written_apart(listed: Callable, tmp_path: Path, write_nifti: Callable) -> None:
    folder = listed(("all",))
    for case in range(6):
        both = np.stack([np.full((4, 3, 2), 1.5), np.arange(24).reshape(4, 3, 2)], axis=3).astype(np.float32)
        both[0, 0, 0, 0] = 0
        write_nifti(f"raw/P{case}/all.nii.gz", both, AFFINE)
    out = tmp_path / "Dataset501_A"
    write_nnunet(folder, out, ["T1", "T2"], LABELS)
    second = nib.load(out / "imagesTr" / "P0_0001.nii.gz")
    assert not (out / "imagesTr" / "P0_0001.nii.gz").is_symlink()
    np.testing.assert_array_equal(np.asarray(second.dataobj).ravel(), np.arange(24))
    np.testing.assert_allclose(second.affine, AFFINE)


def test_a_channel_on_another_grid_is_resampled(listed: Callable, tmp_path: Path, write_nifti: Callable) -> None:
    folder = listed()
    write_nifti("raw/P0/T2.nii.gz", np.arange(48, dtype=np.int16).reshape(4, 3, 4), np.diag([2.0, 2.0, 1.5, 1.0]))
    out = tmp_path / "Dataset501_A"
    write_nnunet(folder, out, ["T1", "T2"], LABELS)
    shapes = {nib.load(path).shape for path in (out / "imagesTr").glob("P0_*")}
    assert shapes == {(4, 3, 2)} and not (out / "imagesTr" / "P0_0000.nii.gz").is_symlink()


@pytest.mark.parametrize(
    ("regions", "values", "order"),
    [
        (None, {"oedema": 1, "core": 2, "ring": 3}, None),
        ({"a": ["oedema"], "b": ["core"], "c": ["ring"]}, {"a": 1, "b": 2, "c": 3}, None),
        (
            {"ring": ["ring"], "whole": ["oedema", "core", "ring"], "inner": [7, "ring"]},
            {"whole": [1, 2, 3], "inner": [2, 3], "ring": 3},
            [1, 2, 3],
        ),
        ({"two": ["core", "ring"], "oedema": [2], "ring": [4]}, {"two": [2, 3], "oedema": 1, "ring": 3}, [2, 1, 3]),
    ],
)
def test_regions_are_in_the_order_of_their_decision(regions: Any, values: dict, order: list[int] | None) -> None:
    named, found = label_values(LABELS, regions)
    assert list(named.items()) == [("background", 0), *values.items()] and found == order


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"inner": ["core", "ring"], "ring": ["ring"]}, "label oedema is in none of inner, ring"),
        ({"whole": ["oedema", "core", "ring"]}, "label core is not alone in the rest of whole"),
        ({"a": [2], "b": [7], "c": [4], "d": [4]}, "c has no label of its own"),
    ],
)
def test_regions_that_nnunet_cannot_decide_are_refused(regions: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_values(LABELS, regions)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Heads", {}, "expects a name DatasetNNN_NAME with three digits"),
        ("Dataset501_A", {"labels": {"oedema": 2}}, r"P\d/seg.nii.gz: values 0, 2, 4, 7, expected 0 and 2; map them"),
        ("Dataset501_A", {"modalities": ["T1", "CET1"]}, "modalities T1, T2, expected T1, CET1"),
    ],
)
def test_what_cannot_be_written_is_refused(
    listed: Callable, tmp_path: Path, name: str, options: dict, message: str
) -> None:
    out = tmp_path / "nnUNet_raw" / name
    with pytest.raises(InputError, match=message):
        write_nnunet(listed(), out, **{"modalities": ["T1", "T2"], "labels": LABELS, **options})
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_existing_data_and_label_codes_are_refused(listed: Callable, tmp_path: Path) -> None:
    folder, out = listed(("CT",)), tmp_path / "Dataset501_A"
    write_nnunet(folder, out, ["CT"], LABELS)
    with pytest.raises(InputError, match="Dataset501_A: already exists and is not overwritten"):
        write_nnunet(folder, out, ["CT"], LABELS)
    content = read(folder, "dataset.json")
    content["test"][0]["label_code"] = "brats"
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has a label_code"):
        write_nnunet(folder, tmp_path / "Dataset502_A", ["CT"], LABELS)


def test_folds_that_are_not_numbered_from_0_are_refused(listed: Callable, tmp_path: Path) -> None:
    folder = listed(("CT",))
    content = read(folder, "dataset.json")
    for case in content["training"] + content["validation"] + content["test"]:
        case["fold"] += 1
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"folds .*, expected 0, 1, 2 and so on"):
        write_nnunet(folder, tmp_path / "Dataset501_A", ["CT"], LABELS)


def test_the_verb_takes_the_settings_of_the_bundle(
    listed: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder, out = listed(("CT",), (1, 2)), tmp_path / "Dataset501_Liver"
    (tmp_path / "over.json").write_text(json.dumps({"labels": {"a": 1, "b": 2}, "label_map": {}, "max_epochs": 3}))
    for number, options in enumerate(([], ["--overlay", str(tmp_path / "over.json")])):
        out = tmp_path / f"Dataset50{number}_Liver"
        arguments = ["liver_ct_mpunet", "--dataset_dir", str(folder), "--out", str(out), *options]
        monkeypatch.setattr("sys.argv", ["common", "nnunet", *arguments])
        main()
        first, *folds = capsys.readouterr().out.splitlines()
        values = "liver 1" if number == 0 else "a 1, b 2"
        assert first == f"{out}: 6 cases; channels CT; labels background 0, {values}"
        assert folds == [f"fold {fold}: 3 train, 2 val" for fold in range(3)]
        label = np.asarray(nib.load(out / "labelsTr" / "P0.nii.gz").dataobj)
        assert label.ravel()[:3].tolist() == ([1, 1, 0] if number == 0 else [1, 2, 0])
