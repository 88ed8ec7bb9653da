"""Train, evaluate and infer by every bundle's real configs, on its tiny cohort and with its narrow network."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events

from common.data import SampledCacheDataset
from common.engines import StagedTrainer
from common.engines.training_folder import STATE_FILE
from common.errors import InputError, root_cause

from ..workflows import BUNDLES, FOUND, METHOD, MODALITIES, PLAIN, TINY, bundles, mask_of


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
    """Train the plain bundle; return the folder of its weights."""
    workflow(PLAIN, "train").run()
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("bundle", "epoch"),
    [(tiny.bundle, epoch) for tiny in FOUND for epoch in range(1, tiny.epochs + 1)],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_interrupted_training_resumes_bit_for_bit(
    workflow: Callable, tmp_path: Path, bundle: Path, epoch: int, uninterrupted: Path
) -> None:
    """Resume from what was there at the first update after ``epoch``, or after the last one."""
    shutil.copytree(uninterrupted / f"after_{epoch}", tmp_path / "models")
    workflow(bundle, "train", resume=True).run()
    assert_same_weights(tmp_path / "models", uninterrupted / f"after_{METHOD[bundle].epochs}")


def test_a_training_killed_between_two_files_resumes(
    workflow: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End a training just before each of its files appears, as a kill does."""
    workflow(PLAIN, "train", ckpt_dir=str(tmp_path / "whole")).run()
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
                workflow(PLAIN, "train", ckpt_dir=str(folder)).run()
                break
            except SystemExit:
                pass
        workflow(PLAIN, "train", ckpt_dir=str(folder), resume=True).run()
        assert_same_weights(folder, tmp_path / "whole")
    assert number >= 4 and written.count(STATE_FILE) == 2 and "run.json" in written


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture
def uninterrupted(bundle: Path, workflow: Callable, trained_once: Path) -> Path:
    """Train the bundle without interruption; return a folder with a copy of what was there after each epoch."""
    folder = trained_once / bundle.name
    if not folder.exists():
        flow = workflow(bundle, "train", ckpt_dir=str(folder / "models"))
        trainer: StagedTrainer = flow.trainer

        def copy() -> None:
            after = folder / f"after_{trainer.state.epoch - 1}"
            if trainer.state.epoch > 1 and not after.exists():
                shutil.copytree(folder / "models", after)

        trainer.add_event_handler(Events.ITERATION_STARTED, copy)
        flow.run()
        (folder / "models").rename(folder / f"after_{METHOD[bundle].epochs}")
    return folder


def test_a_training_is_never_overwritten(workflow: Callable, trained: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "train").run()
    assert isinstance(error.value.__cause__, InputError)
    message = str(error.value.__cause__)
    assert "training_state.pt" in message and "--resume true" in message


def test_missing_weights_are_refused(workflow: Callable) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "inference", weights="missing.pt").run()
    with pytest.raises(InputError, match=r"missing\.pt: no such file"):
        raise error.value.__cause__  # type: ignore[misc]


def test_weights_of_another_network_are_refused(workflow: Callable, trained: Path) -> None:
    key = next(key for key in TINY[PLAIN.name] if key.startswith("network_def::"))
    here, recorded = [2 * width for width in TINY[PLAIN.name][key]], TINY[PLAIN.name][key]
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "inference", **{key: here}).run()
    message = str(error.value.__cause__)
    assert isinstance(error.value.__cause__, InputError)
    assert key in message and str(here) in message and str(recorded) in message


def test_damaged_weights_are_refused(workflow: Callable, trained: Path) -> None:
    (trained / "model.pt").write_bytes((trained / "model.pt").read_bytes()[:-500])
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "inference").run()
    assert "model.pt: not a complete file" in str(error.value.__cause__)


@pytest.mark.parametrize(("word", "resumes"), [("true", True), ("True", True), ("false", False)])
def test_a_switch_takes_true_and_false_as_words(workflow: Callable, word: str, resumes: bool) -> None:
    assert workflow(PLAIN, "train", resume=word).trainer.folder.resume is resumes


def test_another_word_for_a_switch_is_refused(workflow: Callable) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "train", resume="yes").run()
    message = str(root_cause(error.value))
    assert message.startswith("--resume yes: ") and "true or false" in message


def test_inference_resumes_with_the_cases_left(
    workflow: Callable, busy_weights: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy_weights(PLAIN)
    workflow(PLAIN, "inference").run()
    first, second = sorted((tmp_path / "out").glob("*_seg.nii.gz"))
    kept, expected = first.stat().st_mtime_ns, mask_of(second)
    second.unlink()
    with caplog.at_level("INFO"):
        workflow(PLAIN, "inference", resume="true").run()
        assert "1 of 2 cases have a result" in caplog.text
        workflow(PLAIN, "inference", resume="true").run()
        assert "0 of 0 cases done" in caplog.text
    assert first.stat().st_mtime_ns == kept
    np.testing.assert_array_equal(mask_of(second), expected)


def test_an_unknown_precision_is_refused(workflow: Callable, trained: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        workflow(PLAIN, "inference", precision="half").run()
    message = str(root_cause(error.value))
    assert message.startswith("--precision half: ") and "auto, bfloat16 or float32" in message


def fingerprint(dataset: SampledCacheDataset) -> list[dict[str, str]]:
    """Hash every array of every cached case."""
    return [
        {
            key: hashlib.sha256(np.ascontiguousarray(torch.as_tensor(value).numpy())).hexdigest()
            for key, value in [*case.items(), *((f"{k}.affine", case[k].affine) for k in ("image", "label"))]
            if isinstance(value, (torch.Tensor, np.ndarray))
        }
        for case in dataset._cache
    ]


@bundles
def test_sampling_leaves_the_cached_cases_as_they_are(workflow: Callable, bundle: Path) -> None:
    """Write into samples: the cache does not copy its cases, so a shared buffer would show in later samples."""
    dataset = workflow(bundle, "train").parser.get_parsed_content("train::dataset")
    assert isinstance(dataset, SampledCacheDataset) and len(dataset._cache) == len(dataset) > 1
    before = fingerprint(dataset)
    assert all({"image", "label", "image.affine"} <= case.keys() for case in before)
    first = {key: value.clone() for key, value in dataset[0, 3].items() if isinstance(value, torch.Tensor)}
    tiny = METHOD[bundle]
    size = tuple(tiny.overlay["roi_size"])
    found: set = set()
    for case in range(len(dataset)):
        for seed in range(40):
            sample = dataset[case, seed]
            assert (sample["image"].dtype, sample["label"].dtype) == tiny.sample_types
            for key, channels in (("image", len(MODALITIES[bundle])), ("label", 1)):
                assert sample[key].shape == (*tiny.sample_axes, channels, *size)
            found |= set(sample["label"].unique().tolist())
            sample["image"].fill_(7)  # as a network may that works in place
            sample["label"].fill_(7)
    assert found == tiny.label_values
    assert fingerprint(dataset) == before
    again = dataset[0, 3]
    assert all(torch.equal(again[key], first[key]) for key in ("image", "label"))


@pytest.mark.parametrize(
    ("bundle", "section", "device"),
    [(bundle, "train", METHOD[bundle].cache_on) for bundle in BUNDLES]
    + [(bundle, "validate", "meta") for bundle in BUNDLES],
    ids=lambda value: getattr(value, "name", value),
)
def test_cached_cases_are_compact_and_on_the_cache_device(
    workflow: Callable, bundle: Path, section: str, device: str
) -> None:
    """Use ``meta``, a device without memory, in place of a GPU."""
    flow = workflow(bundle, "train", cache_device=f"$torch.device('{device}')", device="$torch.device('cpu')")
    dataset = flow.parser.get_parsed_content(f"{section}::dataset")
    assert len(dataset._cache) > 0
    for case in dataset._cache:
        assert (case["image"].dtype, case["image"].device.type) == (torch.float16, device)
        assert (case["label"].dtype, case["label"].device.type) == (torch.uint8, device)
        assert case["image"].shape[0] == len(MODALITIES[bundle]) and case["label"].shape[0] == 1
        assert case["image"].shape[1:] == case["label"].shape[1:]
