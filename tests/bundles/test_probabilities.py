"""Test inference with ``--probabilities true``: the file of each case, its record, and the resumption of a batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from common.errors import InputError, UsageError, root_cause
from common.files import sha256

from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.omnet.tiny import OMNET
from ..workflows import BUNDLES, PLAIN, bundles, config_of, results_in

ONE_CHANNEL = ("nasopharynx_mri_mmfnet", "lung_ct_multirnet")  # a threshold of 0.5 decides


def voxels(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def names_of(flow: ConfigWorkflow) -> list[str]:
    return [case["case"] for case in flow.parser.get_parsed_content("case_list")]


def masks_in(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file) for file in folder.glob("*_seg.nii.gz")}


def refusal(run: Callable) -> InputError:
    with pytest.raises((InputError, RuntimeError)) as caught:
        run()
    cause = root_cause(caught.value)
    assert isinstance(cause, InputError)
    return cause


@bundles
def test_probabilities_agree_with_the_mask(
    bundle: Path, workflow: Callable, busy_weights: Callable, tmp_path: Path
) -> None:
    busy_weights(bundle)
    workflow(bundle, "inference", limit=2, output_dir=str(tmp_path / "plain")).run()
    flow = workflow(bundle, "inference", limit=2, probabilities="true")
    flow.run()
    out = tmp_path / "out"
    assert masks_in(out) == masks_in(tmp_path / "plain") != {}
    labels = config_of(bundle, "inference")["labels"]
    for case in names_of(flow):
        mask = nib.load(out / f"{case}_seg.nii.gz")
        image = nib.load(out / f"{case}_prob.nii.gz")
        assert image.shape == (*mask.shape, 1 + len(labels)) and image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(image.affine, mask.affine)
        assert image.header.get_xyzt_units()[0] == "mm"
        found, classes = np.asarray(image.dataobj), voxels(out / f"{case}_seg.nii.gz")
        assert found.min() >= 0 and found.max() <= 1
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
        if bundle != OMNET:
            decision = found[..., 1] >= 0.5 if bundle.name in ONE_CHANNEL else found.argmax(-1)
            np.testing.assert_array_equal(np.array([0, *labels.values()])[decision.astype(int)], classes)
            assert 0 < decision.mean() < 1
        record = json.loads((out / f"{case}_seg.json").read_text())
        assert record["channels"] == {f"{case}_prob.nii.gz": ["background", *labels]}
        assert record["results"][f"{case}_prob.nii.gz"] == sha256(out / f"{case}_prob.nii.gz")


def test_resume_makes_missing_probabilities(
    workflow: Callable, busy_weights: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy_weights(PLAIN)
    out = tmp_path / "out"
    workflow(PLAIN, "inference", limit=1).run()
    before = masks_in(out)
    assert not list(out.glob("*_prob.nii.gz"))
    workflow(PLAIN, "inference", limit=1, probabilities=True, resume=True).run()
    (file,) = out.glob("*_prob.nii.gz")
    made = file.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        workflow(PLAIN, "inference", limit=1, probabilities=True, resume=True).run()
        workflow(PLAIN, "inference", limit=1, resume=True).run()
    assert caplog.text.count("1 of 1 cases have a result") == 2
    assert file.stat().st_mtime_ns == made and masks_in(out) == before
    workflow(PLAIN, "inference", limit=1).run()  # writes the mask again, and keeps what it knows of the file
    record = json.loads(next(out.glob("*_seg.json")).read_text())
    assert record["results"][file.name] == sha256(file) and file.name in record["channels"]
    file.unlink()
    workflow(PLAIN, "inference", limit=1, probabilities=True, resume=True).run()
    assert file.exists()


def test_a_mask_beside_probabilities_of_others_is_refused(workflow: Callable, busy_weights: Callable) -> None:
    busy_weights(PLAIN)
    workflow(PLAIN, "inference", limit=1, probabilities=True).run()
    error = refusal(workflow(PLAIN, "inference", limit=1, precision="float32").run)
    assert "_prob.nii.gz: made from another scan, or with other weights or settings" in str(error)
    workflow(PLAIN, "inference", limit=1, precision="float32", probabilities=True).run()


def test_a_task_without_masks_has_no_probabilities(workflow: Callable, busy_weights: Callable) -> None:
    error = refusal(
        lambda: workflow(MAMTLN_CT, "inference", task="class", weights="untrained", probabilities=True).run()
    )
    assert isinstance(error, UsageError) and "--task class" in str(error)


@bundles
def test_cases_are_selected_by_name(bundle: Path, workflow: Callable, tmp_path: Path) -> None:
    flow = workflow(bundle, "inference", weights="untrained")
    names = names_of(flow)
    assert len(names) >= 2
    flow = workflow(bundle, "inference", weights="untrained", cases=f"{names[1]}")
    assert names_of(flow) == names[1:2]
    flow.run()
    assert {name.split("_seg")[0] for name in results_in(tmp_path / "out") if "_seg" in name} == {names[1]}
    flow = workflow(bundle, "inference", weights="untrained", cases=f"{names[1]},{names[0]}", limit=1)
    assert names_of(flow) == names[:1]
    error = refusal(lambda: workflow(bundle, "inference", weights="untrained", cases=[names[0], "nobody", "007"]).run())
    assert str(error).startswith("--cases nobody,007: no such case in dataset_dir=") and names[0] in str(error)


@bundles
def test_evaluation_scores_the_selected_cases(
    bundle: Path, workflow: Callable, busy_weights: Callable, tmp_path: Path
) -> None:
    busy_weights(bundle)
    names = names_of(workflow(bundle, "inference"))
    options = {"allow_seen_cases": True, "output_dir": str(tmp_path / "scores")}
    workflow(bundle, "train", "evaluate", cases=names[1], **options).run()
    rows = (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [names[1]]
    workflow(bundle, "train", "evaluate", limit=1, **options).run()
    rows = (tmp_path / "scores" / "scores.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [names[0]]
    error = refusal(lambda: workflow(bundle, "train", "evaluate", cases="nobody", **options).run())
    assert str(error).startswith("--cases nobody: no such case in 'test' of") and names[0] in str(error)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two"])
def test_a_limit_is_a_whole_number_above_zero(workflow: Callable, value: object) -> None:
    error = refusal(lambda: workflow(BUNDLES[0], "inference", weights="untrained", limit=value))
    assert str(error) == f"--limit {value}: expected a whole number of at least 1, or null"
