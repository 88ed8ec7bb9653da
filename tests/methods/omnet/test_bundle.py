"""Test what only OM-Net's bundle has: labels of tumour parts, label codes, variants and ensembles."""

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
from scipy import ndimage
from scipy.spatial import cKDTree

from common.engines.training_folder import STATE_FILE
from common.errors import root_cause
from common.methods.omnet import Cascade, OMNet
from common.reporting import read_scores

from ...workflows import assert_label_maps, results_in
from .tiny import OMNET, sure_of_parts

MODALITIES = ("FLAIR", "T1", "CET1", "T2")
REGIONS = {"complete": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    return busy_weights(OMNET)


@pytest.fixture
def infer(workflow: Callable, tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Infer into a folder of its own; return the label maps by case."""

    def run(name: str, *overlays: str, **override: Any) -> dict[str, np.ndarray]:
        workflow(OMNET, "inference", *overlays, output_dir=str(tmp_path / name), **override).run()
        return {p.name.removesuffix("_seg.nii.gz"): labels_of(p) for p in (tmp_path / name).glob("*_seg.nii.gz")}

    return run


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def assert_equal_maps(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys() and one
    for case in one:
        np.testing.assert_array_equal(one[case], other[case])


def files_of(cohort: Path, case: str = "case_000") -> dict[str, Path]:
    return {modality: cohort / "images" / f"{case}_{modality}.nii.gz" for modality in MODALITIES}


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
    assert str(root_cause(error.value)) == "3 of 5 cases failed: empty, incomplete, truncated"
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
