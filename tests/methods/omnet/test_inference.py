"""Infer with OM-Net: windows, levels, cascades, ensembles, axes and broken cases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.errors import root_cause
from common.methods.omnet import Cascade, OMNet

from ...workflows import results_in
from .label_maps import MODALITIES, REGIONS, assert_equal_maps, files_of, labels_of
from .tiny import OMNET, sure_of_parts


def test_small_parts_are_removed_by_default(infer: Callable, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    torch.save(sure_of_parts(seed=5).state_dict(), tmp_path / "models" / "model.pt")
    cleaned, raw = infer("cleaned"), infer("raw", clean="false")
    for case, labels in cleaned.items():
        removed = (raw[case] > 0) & (labels == 0)
        assert removed.any() and labels.any()
        np.testing.assert_array_equal((labels > 0) | removed, raw[case] > 0)


def test_the_papers_windows(workflow: Callable, infer: Callable, busy: Path) -> None:
    paper = {"roi_size": [32, 32, 16], "keep": [20, 20, 5]}
    assert workflow(OMNET, "inference", **paper).inferer.keep == [20, 20, 5]
    assert all(set(np.unique(labels)) == {0, 1, 2, 4} for labels in infer("paper", **paper).values())


def assert_levels(one: dict[str, np.ndarray], two: dict[str, np.ndarray], three: dict[str, np.ndarray]) -> None:
    """Check that the third task decides within the core only and that each task decides something."""
    for case in three:
        assert (one[case] != two[case]).any() and (two[case] != three[case]).any()
        for region in ("complete", "core"):
            masks = [np.isin(maps[case], REGIONS[region]) for maps in (two, three)]
            assert masks[0].any()
            np.testing.assert_array_equal(*masks)


def test_levels_are_the_tasks_that_count(infer: Callable, busy: Path) -> None:
    assert_levels(*(infer(f"level {n}", levels=n, clean="false") for n in (1, 2, 3)))


@pytest.fixture
def cascade(tmp_path: Path) -> Path:
    """Write weights of a cascade that sees a tumour in some windows only; return their folder."""
    network = sure_of_parts(Cascade, seed=3)
    for task in ("coarse", "tumour"):
        network.nets[task].head[-1].bias.data[0] += 5  # type: ignore[index, union-attr, operator]
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    return tmp_path / "models"


def test_a_gated_cascade_gives_the_same_maps_with_less_work(workflow: Callable, cascade: Path, tmp_path: Path) -> None:
    maps, windows = {}, {}
    for gated in ("true", "false"):
        folder = tmp_path / gated
        options = {"gated": gated, "precision": "float32", "output_dir": str(folder)}
        flow = workflow(OMNET, "inference", "ablations/cascade", **options)
        counts = windows[gated] = dict.fromkeys(flow.network_def.nets, 0)
        for task, net in flow.network_def.nets.items():

            def count(net: torch.nn.Module, inputs: tuple, task: str = task, counts: dict = counts) -> None:
                counts[task] += len(inputs[0])

            net.register_forward_pre_hook(count)
        flow.run()
        maps[gated] = {p.name: labels_of(p) for p in folder.glob("*_seg.nii.gz")}
    assert_equal_maps(maps["true"], maps["false"])
    assert all(set(np.unique(labels)) == {0, 1, 2, 4} for labels in maps["true"].values())
    assert len(set(windows["false"].values())) == 1
    assert windows["true"]["coarse"] == windows["false"]["coarse"]
    assert windows["true"]["coarse"] > windows["true"]["tumour"] > windows["true"]["enhancing"] > 0


def test_levels_of_the_cascade(infer: Callable, cascade: Path) -> None:
    assert_levels(*(infer(f"MC{n}", "ablations/cascade", levels=n, clean="false") for n in (1, 2, 3)))


def test_an_ensemble_is_the_mean_of_its_members(workflow: Callable, infer: Callable, busy: Path) -> None:
    members = [OMNet(channels=(2, 4), dense=True) for _ in range(2)]
    files = [str(busy / "model.pt"), str(busy / "other.pt")]
    torch.save(sure_of_parts(seed=5).state_dict(), files[1])
    for member, file in zip(members, files):
        member.load_state_dict(torch.load(file, weights_only=True))
        member.eval()
    x = torch.randn(1, 4, 16, 16, 8)
    for names in (("inference", "ensemble"), ("train", "evaluate", "ensemble")):
        flow = workflow(OMNET, *names, weights=files)
        flow.run()
        network = flow.network_def.eval()
        with torch.no_grad():
            torch.testing.assert_close(network(x), (members[0](x) + members[1](x)) / 2)

    alone, twice, both = (
        infer("alone"),
        infer("twice", "ensemble", weights=files[:1] * 2),
        infer("both", "ensemble", weights=files),
    )
    assert_equal_maps(alone, twice)
    assert all((both[case] != alone[case]).any() and both[case].any() for case in both)


def test_another_number_of_files_than_networks_is_refused(workflow: Callable, busy: Path) -> None:
    file = str(busy / "model.pt")
    with pytest.raises(RuntimeError) as error:
        workflow(OMNET, "inference", weights=[file, file]).run()
    message = str(root_cause(error.value))
    assert "2 files" in message and "1 network" in message


def test_neither_axes_nor_data_types_change_the_label_map(
    infer: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    ras, types = nib.orientations.axcodes2ornt("RAS"), dict(zip(MODALITIES, ("int16", "uint16", "float32", "float64")))
    for name, axes, dtypes in (
        ("plain", "RAS", {}),
        ("typed", "RAS", types),
        ("lps", "LPS", {}),
        ("turned", "SAL", types),
    ):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for modality, file in files_of(cohort(OMNET)).items():
            image = nib.load(file)
            values = np.asarray(image.dataobj).astype(dtypes.get(modality, image.get_data_dtype()))
            turn = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(axes))
            image = nib.Nifti1Image(values, image.affine).as_reoriented(turn)
            assert "".join(nib.aff2axcodes(image.affine)) == axes
            nib.save(image, tmp_path / "scans" / name / f"{modality}.nii.gz")
    maps = infer("maps", dataset_dir=str(tmp_path / "scans"))
    assert set(np.unique(maps["plain"])) == {0, 1, 2, 4}
    plain = nib.load(tmp_path / "scans" / "plain" / "T1.nii.gz")
    for name in ("typed", "lps", "turned"):
        written, scan = (
            nib.load(tmp_path / "maps" / f"{name}_seg.nii.gz"),
            nib.load(tmp_path / "scans" / name / "T1.nii.gz"),
        )
        assert written.shape == scan.shape
        np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
        back = nib.as_closest_canonical(written)
        np.testing.assert_allclose(back.affine, plain.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(back.dataobj), maps["plain"])


def test_a_background_of_noise_and_broken_cases(
    workflow: Callable, infer: Callable, busy: Path, cohort: Callable, tmp_path: Path
) -> None:
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    for name in ("good", "noisy", "truncated", "incomplete", "empty"):
        (scans / name).mkdir(parents=True)
        for file in files_of(cohort(OMNET)).values():
            shutil.copy(file, scans / name)
    for path in (scans / "noisy").iterdir():
        image = nib.load(path)
        values = np.asarray(image.dataobj, np.float32)
        noise = np.hypot(*rng.normal(0, 10, (2, *values.shape)))
        nib.save(nib.Nifti1Image(np.where(values == 0, noise, values).astype(np.float32), image.affine), path)
    broken = scans / "truncated" / "case_000_T2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:5000])
    (scans / "incomplete" / "case_000_FLAIR.nii.gz").unlink()
    for path in (scans / "empty").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.full(image.shape, 3, np.int16), image.affine), path)

    with pytest.raises(RuntimeError) as error:
        infer("maps", dataset_dir=str(scans))
    message = str(root_cause(error.value))
    assert re.match(r"3 of 5 cases failed: empty \(.*\), incomplete \(.*\), truncated \(", message)
    message = (tmp_path / "maps" / "inference.log").read_text()
    assert "truncated/case_000_T2.nii.gz: not a complete NIfTI file" in message
    assert "incomplete: no FLAIR among" in message
    assert f"{scans / 'empty'}" in message
    assert results_in(tmp_path / "maps") == {
        "good_seg.nii.gz", "noisy_seg.nii.gz", "inference.log",
    }  # fmt: skip

    brain = np.any([np.asarray(nib.load(f).dataobj) for f in files_of(cohort(OMNET)).values()], axis=0)
    good, noisy = (labels_of(tmp_path / "maps" / f"{name}_seg.nii.gz") for name in ("good", "noisy"))
    assert np.mean((good == noisy)[brain]) > 0.9
    preprocess = workflow(OMNET, "inference").parser.get_parsed_content("preprocessing")
    found = preprocess({"image": [str(scans / "noisy" / f.name) for f in files_of(cohort(OMNET)).values()]})["image"]
    assert (found != 0).any(0).sum() == pytest.approx(brain.sum(), rel=0.03)


def test_switches_are_words(workflow: Callable) -> None:
    for word, value in (("true", True), ("False", False)):
        (stage,) = workflow(OMNET, "train", transfer=word).parser.get_parsed_content("stages")
        assert stage.prepare_batch.transfer is value
        flow = workflow(OMNET, "inference", "ablations/cascade", weights="untrained", gated=word)
        assert flow.inferer.gated is value
