from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.errors import InputError
from common.methods.mmfnet import HEAD_DISTRACTORS, HEAD_SIGNALS, HeadPhantom
from common.methods.omnet import BRAIN_DISTRACTORS, BRAIN_SIGNALS, BrainPhantom
from common.phantoms import Phantom, PhantomRecipe, ensure_cohort, write_cohort

MODALITIES = HeadPhantom.all_modalities
BRAIN_MODALITIES = BrainPhantom.all_modalities

# coarse, to be fast; what is drawn is in millimetres
SMALL = HeadPhantom(size=(42, 48, 16), spacing=(4.0, 4.0, 5.5))
SMALL_BRAIN = BrainPhantom(size=(40, 45, 35), spacing=(4.0, 4.0, 4.0))


def make(seed: int, phantom: PhantomRecipe | None = None) -> Phantom:
    return (phantom or HeadPhantom())(np.random.default_rng(seed))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def best_window(images: list[np.ndarray], label: np.ndarray) -> float:
    """Dice of the best of many windows between quantiles of the tumour's intensities, the same in each image."""
    scores = []
    for low, high in itertools.product([0, 0.005, 0.02, 0.1, 0.25, 0.4], [0.6, 0.75, 0.9, 0.98, 0.995, 1]):
        limits = [np.quantile(image[label], (low, high)) for image in images]
        chosen = [(image >= a) & (image <= b) for image, (a, b) in zip(images, limits)]
        scores.append(dice(np.all(chosen, axis=0), label))
    return max(scores)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("phantom", [SMALL, SMALL_BRAIN])
def test_one_seed_one_case(phantom: PhantomRecipe) -> None:
    first, again, other = make(1, phantom), make(1, phantom), make(2, phantom)
    np.testing.assert_array_equal(first.affine, again.affine)
    np.testing.assert_array_equal(first.label, again.label)
    for modality in phantom.all_modalities:
        np.testing.assert_array_equal(first.images[modality], again.images[modality])
    assert not np.array_equal(first.affine, other.affine)


def test_a_modality_is_the_same_alone_and_among_others() -> None:
    case, subset = make(3, SMALL), make(3, replace(SMALL, modalities=("CET1", "T1")))
    assert list(subset.images) == ["CET1", "T1"]
    np.testing.assert_array_equal(subset.images["T1"], case.images["T1"])
    np.testing.assert_array_equal(subset.images["CET1"], case.images["CET1"])


@pytest.mark.parametrize("seed", range(4))
def test_geometry_and_values(seed: int) -> None:
    case = make(seed)
    nx, ny, nz = case.label.shape
    spacing = case.affine.diagonal()[:3]
    assert (nx, ny) == (84, 96) and 18 <= nz <= 22
    assert spacing[0] == spacing[1] and abs(spacing[0] / 2 - 1) <= 0.1 and abs(spacing[2] / 4.5 - 1) <= 0.15
    np.testing.assert_array_equal(case.affine[:3, :3], np.diag(spacing))
    centre = case.affine[:3, :3] @ (np.array(case.label.shape) - 1) / 2 + case.affine[:3, 3]
    assert abs(centre[:2]).max() <= 3 and abs(centre[2]) < 1e-9
    for image in case.images.values():
        assert image.shape == case.label.shape and image.dtype == np.float32
        assert image.min() >= 0 and 800 < image.max() < 2000
        np.testing.assert_array_equal(image, np.round(image))
        corner = image[:5, :5]
        assert 0 < corner.mean() < 60 and (corner > 0).mean() > 0.9


@pytest.mark.parametrize("seed", range(4))
def test_the_label_is_one_tumour_in_the_nasopharynx(seed: int) -> None:
    case = make(seed)
    assert case.label.dtype == np.uint8 and np.unique(case.label).tolist() == [0, 1]
    assert ndimage.label(case.label)[1] == 1
    volume = case.label.sum() * case.affine.diagonal()[:3].prod()
    assert 24 < (6 * volume / np.pi) ** (1 / 3) < 46
    assert case.label.any((0, 1)).sum() >= 4
    centre = case.affine[:3, :3] @ ndimage.center_of_mass(case.label) + case.affine[:3, 3]
    assert (abs(centre) < (25, 20, 15)).all()
    head = ndimage.binary_fill_holes(ndimage.binary_closing(case.images["T1"] > 150, iterations=2))
    assert head[case.label > 0].mean() > 0.99


def test_what_is_drawn_does_not_depend_on_the_spacing() -> None:
    volumes = []
    for phantom in (HeadPhantom(), SMALL):
        case = make(5, phantom)
        volumes.append(case.label.sum() * case.affine.diagonal()[:3].prod())
    assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


def test_each_distractor_is_the_tumour_in_all_modalities_but_one() -> None:
    signals = HEAD_SIGNALS
    differing = [[i for i in range(3) if signals[name][i] != signals["tumour"][i]] for name in HEAD_DISTRACTORS]
    assert sorted(differing) == [[0], [1], [2]]


def test_only_all_modalities_together_tell_the_tumour() -> None:
    scores: dict[tuple[str, ...], list[float]] = {}
    for seed in range(6):
        case = make(seed)
        for count in (1, 2, 3):
            for names in itertools.combinations(MODALITIES, count):
                images = [case.images[name] for name in names]
                scores.setdefault(names, []).append(best_window(images, case.label > 0))
    means = {names: float(np.mean(values)) for names, values in scores.items()}
    assert max(score for names, score in means.items() if len(names) == 1) < 0.45, means
    assert max(score for names, score in means.items() if len(names) == 2) < 0.85, means
    assert means[MODALITIES] > 0.95, means


@pytest.mark.parametrize("seed", range(4))
def test_a_brain_is_0_outside_and_only_there(seed: int) -> None:
    case = make(seed, BrainPhantom())
    assert case.label.shape == (64, 72, 56) and case.label.dtype == np.uint8
    np.testing.assert_array_equal(case.affine[:3, :3], 2.5 * np.eye(3))
    brain = case.images["FLAIR"] > 0
    assert 0.9e6 < brain.sum() * 2.5**3 < 1.5e6 and ndimage.label(brain)[1] == 1
    assert not any(face.any() for axis in range(3) for face in (brain.take(0, axis), brain.take(-1, axis)))
    for image in case.images.values():
        assert image.dtype == np.float32 and image.min() == 0 and 700 < image.max() < 2000
        np.testing.assert_array_equal(image, np.round(image))
        np.testing.assert_array_equal(image > 0, brain)
    assert not case.label[~brain].any()


def test_the_core_lies_in_oedema_and_the_necrosis_in_a_rim() -> None:
    without = 0
    for seed in range(12):
        label = make(seed, SMALL_BRAIN).label
        tumour, core = label > 0, (label == 1) | (label == 4)
        assert ndimage.label(tumour)[1] == 1 and (label == 2).any()
        assert 0.1 < core.sum() / tumour.sum() < 0.6
        assert tumour[ndimage.binary_dilation(core)].all()
        if not (label == 4).any():
            without += 1
        elif (label == 1).any():
            assert core[ndimage.binary_dilation(label == 1)].all()
    assert 1 <= without <= 6


def test_each_distractor_of_the_brain_differs_in_one_modality() -> None:
    def differing(name: str, other: str) -> list[str]:
        return [m for m, a, b in zip(BRAIN_MODALITIES, BRAIN_SIGNALS[name], BRAIN_SIGNALS[other]) if a != b]

    like = dict(zip(BRAIN_DISTRACTORS, ("oedema", "oedema", "enhancing tumour")))
    found = [differing(name, other) for name, other in like.items()]
    assert [*found, differing("oedema", "enhancing tumour")] == [["FLAIR"], ["T2"], ["T1"], ["CET1"]]


def test_only_all_modalities_together_tell_the_glioma() -> None:
    alone: dict[str, list[float]] = {}
    dropped: dict[str, dict[str, list[float]]] = {m: {} for m in ("none", *BRAIN_MODALITIES)}
    for seed in range(5):
        case = make(seed, SMALL_BRAIN)
        enhancing = case.label == 4
        if not enhancing.any():
            continue
        necrosis = case.label == 1
        regions = {
            "complete": case.label > 0,
            "core": enhancing | necrosis,
            "enhancing": enhancing,
            "necrosis": necrosis,
        }
        for region in ("core", "enhancing", "necrosis"):
            scores = [best_window([case.images[m]], regions[region]) for m in BRAIN_MODALITIES]
            alone.setdefault(region, []).append(max(scores))
        for left_out, results in dropped.items():
            images = [image for modality, image in case.images.items() if modality != left_out]
            for region in ("complete", "enhancing"):
                results.setdefault(region, []).append(best_window(images, regions[region]))
    assert all(np.mean(scores) < 0.7 for scores in alone.values()), alone
    means = {m: {region: float(np.mean(values)) for region, values in dropped[m].items()} for m in dropped}
    assert min(means["none"].values()) > 0.97, means
    for modality in BRAIN_MODALITIES:
        assert min(means[modality].values()) < 0.9, means


def test_a_cohort_begins_as_a_smaller_one_does(tmp_path: Path) -> None:
    few = files(write_cohort(SMALL, tmp_path / "few", 3, seed=7))
    more = files(write_cohort(SMALL, tmp_path / "more", 5, seed=7))
    other = files(write_cohort(SMALL, tmp_path / "other", 3, seed=8))
    del few["dataset.json"]
    assert few.items() < more.items()
    assert all(few[name] != other[name] for name in few)


def test_written_again_every_byte_is_the_same(tmp_path: Path) -> None:
    first = files(write_cohort(SMALL, tmp_path, 3))
    assert files(write_cohort(SMALL, tmp_path, 3)) == first
    missing = next(tmp_path.glob("images/*.nii.gz"))
    missing.unlink()
    assert files(write_cohort(SMALL, tmp_path, 3)) == first


@pytest.mark.parametrize("name", ["dataset.json", "labels/case_001.nii.gz"])
def test_a_file_of_a_cohort_that_was_changed_is_kept(tmp_path: Path, name: str) -> None:
    write_cohort(SMALL, tmp_path, 3)
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n")
    before = files(tmp_path)
    with pytest.raises(InputError, match=f"{name}: another file of this name, or one that was changed since"):
        write_cohort(SMALL, tmp_path, 3)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("cases", "sizes"), [(3, (1, 1, 1)), (8, (4, 2, 2))])
def test_data_list(tmp_path: Path, cases: int, sizes: tuple[int, int, int]) -> None:
    assert write_cohort(SMALL, str(tmp_path), cases) == tmp_path
    listing = json.loads((tmp_path / "dataset.json").read_text())
    assert "not for clinical use" in listing["description"]
    assert listing["modality"] == {"0": "T1", "1": "T2", "2": "CET1"}
    assert listing["labels"] == {"0": "background", "1": "tumour"}
    assert (listing["numTraining"], listing["numTest"]) == (sizes[0], sizes[2])
    lists = [listing[section] for section in ("training", "validation", "test")]
    assert tuple(map(len, lists)) == sizes
    entries = [entry for entries in lists for entry in entries]
    named = [path for entry in entries for path in [*entry["image"], entry["label"]]]
    assert len(named) == 4 * cases
    assert {*named, "dataset.json"} == files(tmp_path).keys()
    assert entries[0]["image"] == [f"images/case_000_{modality}.nii.gz" for modality in MODALITIES]


def test_data_list_of_brains(tmp_path: Path) -> None:
    write_cohort(SMALL_BRAIN, tmp_path, 3)
    listing = json.loads((tmp_path / "dataset.json").read_text())
    assert listing["name"] == "BrainPhantom"
    assert listing["modality"] == {"0": "FLAIR", "1": "T1", "2": "CET1", "3": "T2"}
    assert listing["labels"].keys() == {"0", "1", "2", "4"} and listing["labels"]["2"] == "oedema"
    assert [listing[s][0]["label_code"] for s in ("training", "validation", "test")] == ["brats"] * 3
    label = nib.load(tmp_path / listing["test"][0]["label"])
    np.testing.assert_array_equal(np.asarray(label.dataobj), SMALL_BRAIN(np.random.default_rng([0, 2])).label)


def test_files_are_the_case(tmp_path: Path) -> None:
    write_cohort(SMALL, tmp_path, 3, seed=4)
    case = SMALL(np.random.default_rng([4, 2]))
    label = nib.load(tmp_path / "labels" / "case_002.nii.gz")
    assert label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(label.dataobj), case.label)
    for modality, volume in case.images.items():
        image = nib.load(tmp_path / "images" / f"case_002_{modality}.nii.gz")
        assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume)
        np.testing.assert_allclose(image.get_sform(), case.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), case.affine, atol=1e-4)


def test_a_cohort_that_is_there_is_kept(tmp_path: Path) -> None:
    write_cohort(SMALL, tmp_path, 3)
    (tmp_path / "labels" / "case_000.nii.gz").unlink()
    before = files(tmp_path)
    assert ensure_cohort(SMALL, tmp_path) == tmp_path
    assert files(tmp_path) == before
    assert (ensure_cohort(SMALL, tmp_path / "new") / "images" / "case_011_T2.nii.gz").exists()


def test_another_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    cohort = write_cohort(SMALL, tmp_path / "cohort", 3)
    for out, phantom, cases in [
        (tmp_path / "mine", SMALL, 3),
        (tmp_path / "mine" / "notes.txt", SMALL, 3),
        (cohort, SMALL, 4),
        (cohort, HeadPhantom(), 3),
    ]:
        with pytest.raises(InputError, match="exists and is not this phantom cohort; give another --out or remove it"):
            write_cohort(phantom, out, cases)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_errors(tmp_path: Path) -> None:
    for modalities in [("T1", "FLAIR"), ("T1", "T1"), ()]:
        with pytest.raises(InputError, match=r"modalities .*: expected some of T1, T2, CET1, each once"):
            HeadPhantom(modalities=modalities)
    for size, spacing in [((84, 96, 10), (2.0, 2.0, 4.5)), ((84, 96), (2.0, 2.0))]:
        with pytest.raises(
            InputError, match=r"size .* with spacing .*: expected three each and .* at least 64 x 64 x 64 mm"
        ):
            HeadPhantom(size=size, spacing=spacing)
    with pytest.raises(InputError, match=r"modalities \['T1c'\]: expected some of FLAIR, T1, CET1, T2, each once"):
        BrainPhantom(modalities=("T1c",))
    with pytest.raises(InputError, match="at least 128 x 128 x 128 mm"):
        BrainPhantom(size=(64, 72, 40))
    with pytest.raises(InputError, match="--cases 2: expected at least 3"):
        write_cohort(SMALL, tmp_path / "cohort", 2)
    assert not (tmp_path / "cohort").exists()
