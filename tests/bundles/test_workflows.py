"""The bundles' real configs, from training to a mask, on a tiny cohort and a narrow network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data import SampledCacheDataset
from common.engines.staged_trainer import STATE_FILE, StagedTrainer
from common.errors import InputError, root_cause
from common.results import read_scores

from ..workflows import MAMTLN_CT, MMFNET, MPUNET, MULTIRNET, OMNET, assert_label_maps, results_in

MODALITIES = {
    MMFNET: ("T1", "T2", "CET1"),
    OMNET: ("FLAIR", "T1", "CET1", "T2"),
    MAMTLN_CT: ("CT",),
    MPUNET: ("CT",),
    MULTIRNET: ("CT",),
}


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {p.name: torch.load(p, weights_only=True) for p in sorted(folder.glob("*.pt")) if p.name != STATE_FILE}


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys() and "model.pt" in a
    for name in a:
        assert a[name].keys() == b[name].keys()
        assert all(torch.equal(a[name][k], b[name][k]) for k in a[name]), name


@pytest.fixture
def trained(workflow: Callable, tmp_path: Path) -> Path:
    workflow(MMFNET, "train").run()
    return tmp_path / "models"


def test_train_evaluate_infer(workflow: Callable, trained: Path, cohort: Callable, tmp_path: Path) -> None:
    assert {p.name for p in trained.glob("*.pt")} == {
        "model.pt", "single_T1.pt", "single_T2.pt", "single_CET1.pt", STATE_FILE,
    }  # fmt: skip
    assert "stage 'fine-tuning', epoch 8" in (trained / "train.log").read_text()
    assert list((trained / "tensorboard").iterdir())

    flow = workflow(MMFNET, "train", "evaluate")
    flow.run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    tests = sorted(p.name for p in (cohort(MMFNET) / "labels").iterdir())[-2:]
    assert [row["case"] + ".nii.gz" for row in rows] == tests
    assert set(rows[0]) == {"case", "Dice tumour", "HD95 tumour", "ASSD tumour", "AP", "Dice loss"}
    assert all(0 <= row[name] <= 1 for row in rows for name in ("Dice tumour", "AP", "Dice loss"))
    assert flow.evaluator.state.metrics["AP"] == pytest.approx(np.mean([row["AP"] for row in rows]), abs=1e-6)

    workflow(MMFNET, "inference", output_dir=str(tmp_path / "masks")).run()
    assert_label_maps(tmp_path / "masks", cohort(MMFNET) / "labels", tests, {0, 1})


def mask_of(path: Path) -> np.ndarray:
    mask = np.asarray(nib.load(path).dataobj) > 0
    assert 0.01 < mask.mean() < 0.99
    return mask


def test_the_scores_are_those_of_the_masks(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    workflow(MMFNET, "train", "evaluate").run()
    workflow(MMFNET, "inference").run()
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert len(rows) == 2
    for row in rows:
        mask = mask_of(tmp_path / "out" / f"{row['case']}_seg.nii.gz")
        label = np.asarray(nib.load(cohort(MMFNET) / "labels" / f"{row['case']}.nii.gz").dataobj) > 0
        assert row["Dice tumour"] == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()), abs=1e-5)


# Epochs of the whole training, through all stages or steps of a curriculum.
RESUMED = {MMFNET: 8, OMNET: 4, MAMTLN_CT: 2, MPUNET: 2, MULTIRNET: 2}


@pytest.mark.parametrize(
    ("bundle", "epoch"),
    [(bundle, epoch) for bundle, last in RESUMED.items() for epoch in range(1, last + 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_interrupted_and_resumed_is_uninterrupted(
    workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path, epoch: int, uninterrupted: Path
) -> None:
    """Interrupted in the first update after ``epoch``, or after the last one."""
    flow = workflow(bundle, "train")
    trainer: StagedTrainer = flow.trainer
    iterate = trainer._process_function

    def interrupt(*args: object) -> object:
        if trainer.state.epoch == epoch + 1:
            raise KeyboardInterrupt
        return iterate(*args)

    monkeypatch.setattr(trainer, "_process_function", interrupt)
    if epoch < RESUMED[bundle]:
        with pytest.raises(KeyboardInterrupt):
            flow.run()
    else:
        flow.run()
    workflow(bundle, "train", resume=True).run()
    assert_same_weights(tmp_path / "models", uninterrupted)


def test_killed_between_any_two_files_resumes_the_same(
    workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End a training just before each of its files appears; what it leaves is what a kill leaves there."""
    workflow(MPUNET, "train", ckpt_dir=str(tmp_path / "whole")).run()
    replace, written = os.replace, []
    for number in range(20):
        folder = tmp_path / f"killed_{number}"

        def stop(source: Path, target: Path, number: int = number) -> None:
            written.append(Path(target).name)
            if len(written) == number + 1:
                raise SystemExit("killed")
            replace(source, target)

        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            try:
                workflow(MPUNET, "train", ckpt_dir=str(folder)).run()
                break
            except SystemExit:
                pass
        workflow(MPUNET, "train", ckpt_dir=str(folder), resume=True).run()
        assert_same_weights(folder, tmp_path / "whole")
    assert number >= 4 and written.count(STATE_FILE) == 2 and "run.json" in written


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture
def uninterrupted(bundle: Path, workflow: Callable, trained_once: Path) -> Path:
    """The weights of a whole training of the bundle."""
    if not (trained_once / bundle.name).exists():
        workflow(bundle, "train", ckpt_dir=str(trained_once / bundle.name)).run()
    return trained_once / bundle.name


def test_a_finished_stage_is_not_repeated(workflow: Callable, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in trained.glob("*.pt")}
    with caplog.at_level("INFO"):
        workflow(MMFNET, "train", resume=True).run()
    assert "training is complete after 8 epochs" in caplog.text
    assert {p.name: p.stat().st_mtime_ns for p in trained.glob("*.pt")} == before


def test_a_training_is_not_written_over(workflow: Callable, trained: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "train").run()
    assert isinstance(error.value.__cause__, InputError)
    assert "already holds training_state.pt" in str(error.value.__cause__)
    assert "--resume true" in str(error.value.__cause__)


def test_broken_cases_do_not_stop_the_others(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for name in ("good", "truncated", "incomplete", "twin"):
        (scans / name).mkdir(parents=True)
        for modality in ("T1", "T2", "CET1"):
            shutil.copy(cohort(MMFNET) / "images" / f"case_000_{modality}.nii.gz", scans / name)
    broken = scans / "truncated" / "case_000_T2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    (scans / "incomplete" / "case_000_T2.nii.gz").unlink()
    flow = workflow(MMFNET, "inference", dataset_dir=str(scans))
    with pytest.raises(RuntimeError) as error:
        flow.run()
    assert str(error.value.__cause__) == "2 of 4 cases failed: incomplete, truncated"
    assert "truncated/case_000_T2.nii.gz: not a complete NIfTI file" in flow.evaluator.failures["truncated"]
    assert "incomplete: no T2 among" in flow.evaluator.failures["incomplete"]
    good, twin = (mask_of(tmp_path / "out" / f"{name}_seg.nii.gz") for name in ("good", "twin"))
    np.testing.assert_array_equal(good, twin)
    assert results_in(tmp_path / "out") == {
        "good_seg.nii.gz", "twin_seg.nii.gz", "inference.log",
    }  # fmt: skip
    states = {p.name: json.loads(p.read_text())["state"] for p in (tmp_path / "out").glob("*_seg.json")}
    assert states == {
        "good_seg.json": "done", "twin_seg.json": "done", "truncated_seg.json": "failed",
        "incomplete_seg.json": "failed",
    }  # fmt: skip


def test_three_files_and_one_stacked_file_give_the_same_mask(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    files = [cohort(MMFNET) / "images" / f"case_000_{m}.nii.gz" for m in ("T1", "T2", "CET1")]
    (tmp_path / "scans" / "separate").mkdir(parents=True)
    for file in files:
        shutil.copy(file, tmp_path / "scans" / "separate")
    volumes = [nib.load(f) for f in files]
    stacked = np.stack([np.asarray(v.dataobj) for v in volumes], 3)
    nib.save(nib.Nifti1Image(stacked, volumes[0].affine), tmp_path / "scans" / "stacked.nii.gz")
    workflow(MMFNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    paths = [tmp_path / "out" / f"{name}_seg.nii.gz" for name in ("separate", "stacked")]
    np.testing.assert_array_equal(mask_of(paths[0]), mask_of(paths[1]))
    np.testing.assert_array_equal(nib.load(paths[0]).affine, nib.load(paths[1]).affine)


@pytest.mark.parametrize("axes", [("L", "P", "S"), ("P", "S", "R"), ("S", "L", "A")])
def test_mask_does_not_depend_on_the_axis_order(
    workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path, axes: tuple[str, str, str]
) -> None:
    for name, turn in (("plain", False), ("turned", True)):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for modality in ("T1", "T2", "CET1"):
            image = nib.load(cohort(MMFNET) / "images" / f"case_000_{modality}.nii.gz")
            if turn:
                to = nib.orientations.ornt_transform(
                    nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
                )
                image = image.as_reoriented(to)
            nib.save(image, tmp_path / "scans" / name / f"{modality}.nii.gz")
    workflow(MMFNET, "inference", dataset_dir=str(tmp_path / "scans")).run()
    plain, turned = (nib.load(tmp_path / "out" / f"{n}_seg.nii.gz") for n in ("plain", "turned"))
    assert nib.aff2axcodes(turned.affine) == axes
    assert mask_of(tmp_path / "out" / "plain_seg.nii.gz").any()
    np.testing.assert_array_equal(nib.as_closest_canonical(turned).get_fdata(), plain.get_fdata())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "missing.pt"}, "missing.pt: no such file; train first"),
        ({"network_def::channels": [4, 8]}, r"network_def::channels: \[4, 8\] here, \[2, 4\] in the record"),
    ],
)
def test_weights_that_do_not_fit_are_refused(workflow: Callable, trained: Path, change: dict, message: str) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "inference", **change).run()
    with pytest.raises(InputError, match=message):
        raise error.value.__cause__  # type: ignore[misc]


def test_damaged_weights_are_refused(workflow: Callable, trained: Path) -> None:
    (trained / "model.pt").write_bytes((trained / "model.pt").read_bytes()[:-500])
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "inference").run()
    assert "model.pt: not a complete file of tensors" in str(error.value.__cause__)


def test_early_stopping_ends_a_stage(workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = workflow(MMFNET, "train", max_epochs=6, patience=2, learning_rate=1e-30, fine_tuning_rate=1e-30)
    trainer = flow.trainer
    losses = {}  # a validation that never gets better than in a stage's first epoch
    run = trainer.evaluator.run
    monkeypatch.setattr(
        trainer.evaluator, "run", lambda epoch: (run(epoch), losses.update({epoch: trainer.stage.name}))
    )
    flow.run()
    names = list(losses.values())
    assert names.count("warm-up") == 1
    for stage in ("T1", "T2", "CET1", "fine-tuning"):
        assert 3 <= names.count(stage) <= 6
    state = torch.load(tmp_path / "models" / STATE_FILE, weights_only=True)
    assert state["epoch"] == len(names)


@pytest.mark.parametrize(("word", "resumes"), [("true", True), ("True", True), ("false", False)])
def test_switches_are_words_on_the_command_line(workflow: Callable, word: str, resumes: bool) -> None:
    assert workflow(MMFNET, "train", resume=word).trainer.resume is resumes


def test_another_word_for_a_switch_is_refused(workflow: Callable) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "train", resume="yes").run()
    assert str(root_cause(error.value)) == "--resume yes: expected true or false"


def test_max_epochs_of_the_trainer_limits_the_whole_training(
    workflow: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        workflow(MMFNET, "train", **{"train::trainer::max_epochs": 3}).run()
    assert "max_epochs=3 ends the training in stage 'T2'" in caplog.text


def test_inference_resumes_with_the_cases_left(
    workflow: Callable, busy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflow(MMFNET, "inference").run()
    first, second = sorted((tmp_path / "out").glob("*_seg.nii.gz"))
    kept, expected = first.stat().st_mtime_ns, mask_of(second)
    second.unlink()
    with caplog.at_level("INFO"):
        workflow(MMFNET, "inference", resume="true").run()
        assert "1 of 2 cases have a result" in caplog.text
        workflow(MMFNET, "inference", resume="true").run()
        assert "0 of 0 cases done" in caplog.text
    assert first.stat().st_mtime_ns == kept
    np.testing.assert_array_equal(mask_of(second), expected)


def test_mixed_precision_without_cuda_is_refused(workflow: Callable, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "train", amp="true", ckpt_dir=str(tmp_path), device="$torch.device('cpu')").run()
    assert str(root_cause(error.value)) == "--amp true, but the device is cpu; mixed precision needs CUDA"


def test_a_precision_that_does_not_exist_is_refused(workflow: Callable, busy: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(MMFNET, "inference", precision="half").run()
    assert str(root_cause(error.value)) == "--precision half: expected auto, bfloat16 or float32"


def test_a_case_without_tumour_counts(workflow: Callable, busy: Path, cohort: Callable, tmp_path: Path) -> None:
    """False alarms in a healthy case cost the Dice score; a mask rightly empty is perfect."""
    shutil.copytree(cohort(MMFNET), tmp_path / "data")
    for path in (tmp_path / "data" / "labels").iterdir():
        label = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(tmp_path / "data")).run()
    state = torch.load(busy / "model.pt", weights_only=True)
    state["head.weight"] *= 0
    state["head.bias"] = torch.tensor([-9.0])
    torch.save(state, busy / "silent.pt")
    other = {"weights": str(busy / "silent.pt"), "output_dir": str(tmp_path / "silent")}
    workflow(MMFNET, "train", "evaluate", dataset_dir=str(tmp_path / "data"), **other).run()
    alarmed, silent = (read_scores(tmp_path / name / "scores.csv") for name in ("out", "silent"))
    assert [row["Dice tumour"] for row in alarmed] == [0, 0]
    assert [row["Dice tumour"] for row in silent] == [1, 1]
    assert all(np.isnan(row["AP"]) for row in alarmed)


def fingerprint(dataset: SampledCacheDataset) -> list[dict[str, str]]:
    """Of every array of every cached case."""
    return [
        {
            key: hashlib.sha256(np.ascontiguousarray(torch.as_tensor(value).numpy())).hexdigest()
            for key, value in [*case.items(), *((f"{k}.affine", case[k].affine) for k in ("image", "label"))]
            if isinstance(value, (torch.Tensor, np.ndarray))
        }
        for case in dataset._cache
    ]


# Types of a sample, its axes before the patch's, the patch, and the values of its label.
SAMPLES: dict[Path, tuple] = {
    MMFNET: (torch.float32, torch.float32, (), (16, 16, 8), {0, 1}),
    OMNET: (torch.float16, torch.uint8, (3,), (16, 16, 8), {0, 1, 2, 3, 4}),
    MAMTLN_CT: (torch.float32, torch.float32, (), (16, 16, 8), {0, 1}),
    MPUNET: (torch.float32, torch.float32, (), (32, 32, 8), {0, 1}),
    MULTIRNET: (torch.float32, torch.float32, (), (16, 16, 8), {0, 1}),
}


@pytest.mark.parametrize("bundle", SAMPLES, ids=lambda bundle: bundle.name)
def test_nothing_writes_into_the_cached_cases(workflow: Callable, bundle: Path) -> None:
    """They are not copied for a sample, and in half precision; a write would be there in every later sample."""
    dataset = workflow(bundle, "train").parser.get_parsed_content("train::dataset")
    assert isinstance(dataset, SampledCacheDataset) and len(dataset._cache) == len(dataset) > 1
    before = fingerprint(dataset)
    assert all({"image", "label", "image.affine"} <= case.keys() for case in before)
    first = {key: value.clone() for key, value in dataset[0, 3].items() if isinstance(value, torch.Tensor)}
    image_type, label_type, axes, size, values = SAMPLES[bundle]
    found: set = set()
    for case in range(len(dataset)):
        for seed in range(40):
            sample = dataset[case, seed]
            assert (sample["image"].dtype, sample["label"].dtype) == (image_type, label_type)
            for key, channels in (("image", len(MODALITIES[bundle])), ("label", 1)):
                assert sample[key].shape == (*axes, channels, *size)
            found |= set(sample["label"].unique().tolist())
            sample["image"].fill_(7)  # as a network may that works in place
            sample["label"].fill_(7)
    assert found == values
    assert fingerprint(dataset) == before
    again = dataset[0, 3]
    assert all(torch.equal(again[key], first[key]) for key in ("image", "label"))


@pytest.mark.parametrize(
    ("bundle", "section", "device"),
    [
        (MMFNET, "train", "cpu"),
        (MMFNET, "train", "meta"),
        (MMFNET, "validate", "meta"),
        (OMNET, "train", "cpu"),
        (OMNET, "validate", "meta"),
        (MAMTLN_CT, "validate", "meta"),
        (MPUNET, "train", "meta"),
        (MULTIRNET, "train", "cpu"),
        (MULTIRNET, "validate", "meta"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_cached_cases_are_compact_and_on_the_cache_device(
    workflow: Callable, bundle: Path, section: str, device: str
) -> None:
    """A device without memory stands for one that not every computer has."""
    flow = workflow(bundle, "train", cache_device=f"$torch.device('{device}')", device="$torch.device('cpu')")
    dataset = flow.parser.get_parsed_content(f"{section}::dataset")
    assert len(dataset._cache) > 0
    for case in dataset._cache:
        assert (case["image"].dtype, case["image"].device.type) == (torch.float16, device)
        assert (case["label"].dtype, case["label"].device.type) == (torch.uint8, device)
        assert case["image"].shape[0] == len(MODALITIES[bundle]) and case["label"].shape[0] == 1
        assert case["image"].shape[1:] == case["label"].shape[1:]
