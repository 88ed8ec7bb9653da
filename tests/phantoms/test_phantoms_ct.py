from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.__main__ import main
from common.data import load_cases
from common.errors import InputError
from common.methods.mamtln import StomachPhantom
from common.methods.mamtln.phantom import COELIAC_TRUNK, STOMACH_HU, draw_abdomen
from common.methods.mmfnet import HeadPhantom
from common.methods.mpunet import LiverPhantom
from common.methods.mpunet.phantom import LIVER_HU, draw_upper_abdomen
from common.methods.multirnet import LungPhantom
from common.methods.multirnet.phantom import LUNG_HU, draw_chest
from common.methods.omnet import BrainPhantom
from common.phantoms import Phantom, PhantomRecipe, ensure_cohort, write_cohort
from common.phantoms.acquisition import acquire_ct
from common.phantoms.geometry import distance_to_balls, grid

from .test_phantoms import best_window, files

STOMACH, LIVER, LUNG = StomachPhantom(), LiverPhantom(), LungPhantom()
SMALL_STOMACH = StomachPhantom(size=(48, 40, 14), spacing=(6.0, 6.0, 8.0))
SMALL_LIVER = LiverPhantom(size=(40, 34, 24), spacing=(7.0, 7.0, 7.5))
SMALL_LUNG = LungPhantom(size=(40, 34, 24), spacing=(7.0, 7.0, 8.0))
EVERY = [
    *((phantom, name) for phantom in (SMALL_STOMACH, SMALL_LUNG) for name in phantom.classes),
    (SMALL_LIVER, None),
    (STOMACH, "positive"),
    (LIVER, None),
    (LUNG, "CAP"),
]


def make(phantom: PhantomRecipe, seed: int, class_name: str | None = None) -> Phantom:
    return phantom(np.random.default_rng(seed), class_name)


def points_of(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    steps = np.array(spacing)
    return grid(-steps * (np.array(size) - 1) / 2, steps, size)[0], steps


@pytest.mark.parametrize(("phantom", "class_name"), EVERY)
def test_a_ct(phantom: PhantomRecipe, class_name: str | None) -> None:
    case = make(phantom, 1, class_name)
    image = case.images["CT"]
    assert list(case.images) == ["CT"] and image.dtype == np.float32 and case.label.dtype == np.uint8
    assert image.shape == case.label.shape
    np.testing.assert_array_equal(image, np.round(image))
    assert -1024 <= image.min() < -1000 and 350 < image.max() < 700
    corner = image[:4, -4:]  # in front of the patient, where there is no table
    assert abs(corner.mean() + 1000) < 8 and 5 < corner.std() < 20
    again, other = make(phantom, 1, class_name), make(phantom, 2, class_name)
    np.testing.assert_array_equal(image, again.images["CT"])
    np.testing.assert_array_equal(case.label, again.label)
    assert not np.array_equal(case.affine, other.affine)


def test_noise_is_gaussian_around_the_hu() -> None:
    hu = np.full((60, 60, 20), -1000.0)
    hu[30:] = 100.0
    image = acquire_ct(np.random.default_rng(0), hu, np.array([3.0, 3.0, 6.0]))
    water, air = image[34:], image[:26]
    assert abs(water.mean() - 100) < 2 and 12 < water.std() < 18  # noise, and texture in proportion
    assert abs(air.mean() + 1000) < 2 and 9 < air.std() < 12.5  # cut at -1024
    deviations = (water - water.mean()) / water.std()
    assert abs((deviations**3).mean()) < 0.1 and abs((deviations**4).mean() - 3) < 0.25
    across = [
        np.corrcoef(np.moveaxis(water, axis, 0)[1:].ravel(), np.moveaxis(water, axis, 0)[:-1].ravel())[0, 1]
        for axis in (0, 2)
    ]
    assert across[0] > 0.4 > across[1] > 0.05


def test_distance_to_balls() -> None:
    points, _ = points_of((21, 21, 11), (1.0, 1.0, 2.0))
    centres, radii = np.array([[-4.0, 0, 0], [3, 2, -4]]), np.array([3.0, 4.5])
    naive = np.min(
        [np.linalg.norm(points - c[:, None, None, None], axis=0) - r for c, r in zip(centres, radii)], axis=0
    )
    distance = distance_to_balls(points, centres, radii, reach=2)
    near = naive <= 2
    np.testing.assert_allclose(distance[near], naive[near])
    assert (distance[~near] > 2).all() and np.isinf(distance).any()


def test_slices_of_a_stomach() -> None:
    phantom = replace(STOMACH, size=(48, 40, 17), spacing=(6.0, 6.0, 6.5))
    cases = [make(phantom, seed, "negative") for seed in range(12)]
    assert {case.label.shape[:2] for case in cases} == {(48, 40)}
    assert {case.label.shape[2] for case in cases} == {16, 17, 18}
    distances = [case.affine[2, 2] for case in cases]
    assert 5 <= min(distances) < 6 and 7 < max(distances) <= 8
    assert all(case.affine[0, 0] == case.affine[1, 1] == 6 for case in cases)


@pytest.mark.parametrize("phantom", [STOMACH, SMALL_STOMACH])
def test_a_tumour_of_the_stomach(phantom: StomachPhantom) -> None:
    for seed in range(4):
        case = make(phantom, seed, "positive")
        label, image = case.label == 1, case.images["CT"]
        assert ndimage.label(label)[1] == 1
        assert 15e3 < label.sum() * case.affine.diagonal()[:3].prod() < 90e3  # mm3
        assert case.label.any((0, 1)).sum() >= 3
        assert abs(np.median(image[label]) - STOMACH_HU["tumour"]) < 15
        # it is brighter than what lies around it, and lies in the wall: fat on one side, lumen on another
        ring = ndimage.binary_dilation(label, iterations=2) & ~label
        assert image[ring].mean() < image[label].mean() - 40
        assert (image[label] > 160).any()  # its vessels
        assert (image[ring] < -60).any() and ((image[ring] < -500) | (abs(image[ring] - 12) < 30)).any()


def test_a_window_does_not_tell_the_tumour_of_a_stomach() -> None:
    cases = [make(STOMACH, seed, "positive") for seed in range(2)]
    assert max(best_window([case.images["CT"]], case.label == 1) for case in cases) < 0.3


def test_masses_like_the_tumour_do_not_touch_the_stomach() -> None:
    points, spacing = points_of((60, 50, 17), (5.0, 5.0, 6.5))
    names = tuple(STOMACH_HU)
    assert STOMACH_HU["mass"] == STOMACH_HU["tumour"]
    for seed in range(12):
        tissue = draw_abdomen(np.random.default_rng(seed), points, spacing, positive=False)
        stomach = np.isin(tissue, [names.index(f"stomach {part}") for part in ("wall", "fluid")])
        mass, tumour = (tissue == names.index(name) for name in ("mass", "tumour"))
        away = ndimage.distance_transform_edt(~stomach, sampling=spacing)
        assert mass.sum() * spacing.prod() > 5e3 and away[mass & (points[2] < 40)].min() > 4
        assert away[tumour].min() <= 6.5


def test_bright_nodes_beside_the_tumour_make_a_stomach_positive() -> None:
    points, spacing = points_of((48, 40, 17), (6.0, 6.0, 6.5))
    names = tuple(STOMACH_HU)
    to_trunk = np.linalg.norm(points - np.array(COELIAC_TRUNK)[:, None, None, None], axis=0)
    nearer = []
    for seed in range(8):
        tissue = {p: draw_abdomen(np.random.default_rng(seed), points, spacing, positive=p) for p in (True, False)}
        of_tumour = [names.index(name) for name in ("tumour", "tumour vessel")]
        tumour = np.isin(tissue[True], of_tumour)
        np.testing.assert_array_equal(tumour, np.isin(tissue[False], of_tumour))
        distance = ndimage.distance_transform_edt(~tumour, sampling=spacing)
        bright = {p: tissue[p] == names.index("bright node") for p in tissue}
        assert bright[True].sum() * spacing.prod() > 8 * 1000 and distance[bright[True]].max() < 55
        # on the side where the nodes drain to
        fat = (tissue[False] == names.index("fat")) & (distance < 40)
        nearer.append(to_trunk[fat].mean() - to_trunk[bright[True]].mean())
        assert not bright[False].any()
        for case in tissue.values():
            small, count = ndimage.label(case == names.index("small node"))
            sizes = np.bincount(small.ravel())[1:] * spacing.prod()
            assert count >= 2 and sizes.max() < 900
    assert np.mean(nearer) > 6, nearer


@pytest.mark.parametrize("phantom", [LIVER, SMALL_LIVER])
def test_a_liver(phantom: LiverPhantom) -> None:
    for seed in range(2):
        case = make(phantom, seed)
        image, liver, tumour = case.images["CT"], case.label > 0, case.label == 2
        litres = liver.sum() * case.affine.diagonal()[:3].prod() / 1e6
        assert 0.5 < litres < 1.5
        assert np.unique(case.label).tolist() == [0, 1, 2]
        # the largest part is nearly all of it, and it lies on the right
        parts, _ = ndimage.label(liver)
        assert np.bincount(parts[liver]).max() > 0.97 * liver.sum()
        assert (case.affine[0] @ [*ndimage.center_of_mass(liver), 1]) > 15
        # tumours lie inside and are darker; the rest is liver with a few vessels
        assert liver[ndimage.binary_dilation(tumour)].all() and tumour.sum() < 0.25 * liver.sum()
        inside = ndimage.binary_erosion(liver) & ~ndimage.binary_dilation(tumour)
        assert abs(np.median(image[inside]) - LIVER_HU["liver"]) < 8
        core = ndimage.binary_erosion(tumour)
        assert 20 < np.median(image[inside]) - image[core if core.any() else tumour].mean() < 50


def test_the_number_of_slices_of_livers_varies() -> None:
    phantom = replace(LIVER, size=(36, 30, 37), spacing=(8.0, 8.0, 5.0))
    slices = {make(phantom, seed).label.shape[2] for seed in range(8)}
    assert len(slices) > 3 and min(slices) >= 30 and max(slices) <= 44


def test_a_window_tells_neither_the_liver_nor_its_tumours() -> None:
    livers, tumours = [], []
    for seed in range(3):
        case = make(LIVER, seed)
        livers.append(best_window([case.images["CT"]], case.label > 0))
        tumours.append(best_window([case.images["CT"]], case.label == 2))
    assert np.mean(livers) < 0.65 and np.mean(tumours) < 0.2, (livers, tumours)


def test_organs_like_the_liver_and_cysts_like_its_tumours() -> None:
    points, spacing = points_of((72, 60, 37), (4.0, 4.0, 5.0))
    names = tuple(LIVER_HU)
    like = ("spleen", "kidney", "heart", "food", "bowel")
    assert all(abs(LIVER_HU[name] - LIVER_HU["liver"]) <= 20 for name in like)
    assert LIVER_HU["cyst"] == LIVER_HU["tumour"] and 30 <= LIVER_HU["liver"] - LIVER_HU["tumour"] <= 40
    for seed in range(2):
        tissue = draw_upper_abdomen(np.random.default_rng(seed), points, spacing)
        assert all((tissue == names.index(name)).sum() > 100 for name in like)
        assert {"cyst", "lung", "bone", "table", "hepatic vessel"} <= {names[i] for i in np.unique(tissue)}


@pytest.mark.parametrize("phantom", [LUNG, SMALL_LUNG])
def test_ground_glass_at_the_surface_of_both_lungs(phantom: LungPhantom) -> None:
    behind = []
    for seed in range(4):
        case = make(phantom, seed, "COVID-19")
        image, lesion = case.images["CT"], case.label == 1
        x, y = (np.argwhere(lesion)[:, :2] * case.affine.diagonal()[:2] + case.affine[:2, 3]).T
        assert 0.15 < (x > 0).mean() < 0.85
        behind.append((y < 0).mean())
        assert ndimage.label(lesion)[1] >= 2
        core = ndimage.binary_erosion(lesion)
        assert -680 < np.median(image[core if core.any() else lesion]) < -420
    assert np.mean(behind) > 0.6


@pytest.mark.parametrize("phantom", [LUNG, SMALL_LUNG])
def test_consolidations_in_the_middle_of_one_lung(phantom: LungPhantom) -> None:
    sides = set()
    for seed in range(6):
        case = make(phantom, seed, "CAP")
        image, lesion = case.images["CT"], case.label == 1
        x = np.argwhere(lesion)[:, 0] * case.affine[0, 0] + case.affine[0, 3]
        assert (np.sign(x) == np.sign(x[0])).mean() > 0.98  # but for the shift of the grid
        sides.add(np.sign(x.mean()))
        assert 20e3 < lesion.sum() * case.affine.diagonal()[:3].prod() < 350e3
        core = lesion & (ndimage.distance_transform_edt(lesion, sampling=case.affine.diagonal()[:3]) > 12)
        assert core.any() and -40 < np.median(image[core]) < 60
    assert sides == {1, -1}


def test_a_normal_chest_has_no_lesion_and_what_looks_like_one() -> None:
    case = make(LUNG, 3, "normal")
    assert not case.label.any()
    image = case.images["CT"]
    assert ((image > -650) & (image < -450)).sum() > 2000  # the table, for one
    points, spacing = points_of((72, 60, 40), (4.0, 4.0, 5.0))
    names = tuple(LUNG_HU)
    tissue = draw_chest(np.random.default_rng(0), points, spacing)
    assert {"dependent lung", "lung vessel", "airway", "heart", "aorta", "bone"} <= {
        names[i] for i in np.unique(tissue)
    }
    lung = np.isin(tissue, [names.index(name) for name in ("lung", "dependent lung", "lung vessel")])
    left, right = lung[points[0] < 0].sum(), lung[points[0] > 0].sum()
    assert 0.6 < left / right < 1.4 and 1.2 < lung.sum() * spacing.prod() / 1e6 < 3
    assert (points[1][tissue == names.index("dependent lung")] < 0).all()


def test_a_window_does_not_tell_lesions_of_the_lung() -> None:
    for name, limit in (("COVID-19", 0.62), ("CAP", 0.35)):
        cases = [make(LUNG, seed, name) for seed in range(3)]
        scores = [best_window([case.images["CT"]], case.label == 1) for case in cases]
        assert np.mean(scores) < limit, (name, scores)


def test_a_cohort_with_classes(tmp_path: Path) -> None:
    write_cohort(SMALL_LUNG, tmp_path, 12, seed=2)
    listing = json.loads((tmp_path / "dataset.json").read_text())
    assert listing["modality"] == {"0": "CT"} and listing["labels"] == {"0": "background", "1": "lesion"}
    entries = [entry for section in ("training", "validation", "test") for entry in listing[section]]
    assert [entry["class"] for entry in entries] == ["COVID-19", "CAP", "normal"] * 4
    files_of_1 = {"image": "images/case_001.nii.gz", "label": "labels/case_001.nii.gz"}
    assert entries[1] == {"case": "case_001", **files_of_1, "class": "CAP"}
    assert {entry["class"] for entry in listing["test"]} == set(LUNG.classes)
    named = {path for entry in entries for path in (entry["image"], entry["label"])}
    assert {*named, "dataset.json"} == files(tmp_path).keys()

    case = SMALL_LUNG(np.random.default_rng([2, 1]), "CAP")
    image = nib.load(tmp_path / entries[1]["image"])
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), case.images["CT"])
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / entries[1]["label"]).dataobj), case.label)
    loaded = load_cases(tmp_path, "training", ("CT",))
    assert loaded[0]["image"] == str(tmp_path / "images" / "case_000.nii.gz")


@pytest.mark.parametrize("phantom", [STOMACH, LUNG])
def test_the_lists_of_a_whole_cohort_are_balanced(
    phantom: PhantomRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_voxel = Phantom({"CT": np.zeros((1, 1, 1), np.float32)}, np.zeros((1, 1, 1), np.uint8), np.eye(4))
    monkeypatch.setattr(type(phantom), "_draw", lambda *_: one_voxel)
    listing = json.loads((ensure_cohort(phantom, tmp_path) / "dataset.json").read_text())
    lists = [[entry["class"] for entry in listing[s]] for s in ("training", "validation", "test")]
    assert sum(map(len, lists)) == phantom.default_cases
    for names in lists:
        counts = [names.count(name) for name in phantom.classes]
        assert max(counts) - min(counts) <= 1, counts


def test_a_phantom_without_classes_writes_none(tmp_path: Path) -> None:
    listing = json.loads((write_cohort(SMALL_LIVER, tmp_path, 3) / "dataset.json").read_text())
    files_of_0 = {"image": "images/case_000.nii.gz", "label": "labels/case_000.nii.gz"}
    assert listing["training"] == [{"case": "case_000", **files_of_0}]
    assert listing["labels"] == {"0": "background", "1": "liver", "2": "tumour"}


def test_the_command_writes_as_many_cases_as_the_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "mine" / "configs").mkdir(parents=True)
    recipe = {"_target_": "common.methods.mpunet.LiverPhantom", "size": [36, 30, 14], "spacing": [8.0, 8.0, 12.0]}
    (tmp_path / "mine" / "configs" / "demo.json").write_text(json.dumps({"phantom": recipe}))
    monkeypatch.setattr(LiverPhantom, "default_cases", 4)
    for options, cases in (([], 4), (["--cases=3"], 3)):
        out = str(tmp_path / f"data{cases}")
        monkeypatch.setattr(sys, "argv", ["common", "phantoms", str(tmp_path / "mine"), f"--out={out}", *options])
        main()
        assert capsys.readouterr().out == f"{cases} cases in {out}\n"
        assert len(list(Path(out).glob("images/*.nii.gz"))) == cases


def test_sizes_of_cohorts() -> None:
    phantoms = (HeadPhantom, BrainPhantom, StomachPhantom, LiverPhantom, LungPhantom)
    assert [phantom.default_cases for phantom in phantoms] == [12, 12, 48, 16, 36]


def test_errors() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="class None: expected one of negative, positive"):
        STOMACH(rng)
    with pytest.raises(InputError, match="class healthy: expected one of COVID-19, CAP, normal"):
        LUNG(rng, "healthy")
    with pytest.raises(InputError, match="class CAP: expected none, this phantom has no classes"):
        LIVER(rng, "CAP")
    with pytest.raises(InputError, match=r"size \(96, 80, 10\) .* at least 220 x 180 x 80 mm"):
        StomachPhantom(size=(96, 80, 10))
    for phantom in (LIVER, LUNG):
        with pytest.raises(InputError, match="at least 240 x 200 x 140 mm"):
            replace(phantom, size=(50, 60, 40))
