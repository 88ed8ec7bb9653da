from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.data import load_cases
from common.errors import InputError
from common.methods.omnet import BRAIN_DISTRACTORS, BRAIN_SIGNALS, BrainPhantom
from common.phantoms import write_cohort

from ...phantoms.checks import assert_seed_decides, best_threshold_dice, make

MODALITIES = BrainPhantom.all_modalities
SMALL = BrainPhantom(size=(40, 45, 35), spacing=(4.0, 4.0, 4.0))  # coarse, to be fast; bodies are drawn in mm


def test_a_seed_determines_the_case() -> None:
    assert_seed_decides(SMALL)


@pytest.mark.parametrize("seed", range(4))
def test_the_image_is_0_outside_the_brain_and_only_there(seed: int) -> None:
    case = make(BrainPhantom(), seed)
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
        label = make(SMALL, seed).label
        tumour, core = label > 0, (label == 1) | (label == 4)
        assert ndimage.label(tumour)[1] == 1 and (label == 2).any()
        assert 0.1 < core.sum() / tumour.sum() < 0.6
        assert tumour[ndimage.binary_dilation(core)].all()
        if not (label == 4).any():
            without += 1
        elif (label == 1).any():
            assert core[ndimage.binary_dilation(label == 1)].all()
    assert 1 <= without <= 6


def test_each_distractor_differs_in_one_modality() -> None:
    def differing(name: str, other: str) -> list[str]:
        return [m for m, a, b in zip(MODALITIES, BRAIN_SIGNALS[name], BRAIN_SIGNALS[other]) if a != b]

    like = dict(zip(BRAIN_DISTRACTORS, ("oedema", "oedema", "enhancing tumour")))
    found = [differing(name, other) for name, other in like.items()]
    assert [*found, differing("oedema", "enhancing tumour")] == [["FLAIR"], ["T2"], ["T1"], ["CET1"]]


@pytest.mark.slow
def test_the_glioma_shows_only_in_all_modalities_together() -> None:
    alone: dict[str, list[float]] = {}
    dropped: dict[str, dict[str, list[float]]] = {m: {} for m in ("none", *MODALITIES)}
    for seed in range(5):
        case = make(SMALL, seed)
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
            scores = [best_threshold_dice([case.images[m]], regions[region]) for m in MODALITIES]
            alone.setdefault(region, []).append(max(scores))
        for left_out, results in dropped.items():
            images = [image for modality, image in case.images.items() if modality != left_out]
            for region in ("complete", "enhancing"):
                results.setdefault(region, []).append(best_threshold_dice(images, regions[region]))
    assert all(np.mean(scores) < 0.7 for scores in alone.values()), alone
    means = {m: {region: float(np.mean(values)) for region, values in dropped[m].items()} for m in dropped}
    assert min(means["none"].values()) > 0.97, means
    for modality in MODALITIES:
        assert min(means[modality].values()) < 0.9, means


def test_a_cohort_has_the_code_and_labels_of_brats(tmp_path: Path) -> None:
    write_cohort(SMALL, tmp_path, 3)
    sections = ("training", "validation", "test")
    cases = [case for section in sections for case in load_cases(tmp_path, section, MODALITIES)]
    assert [case["label_code"] for case in cases] == ["brats"] * 3
    label = nib.load(cases[2]["label"])
    np.testing.assert_array_equal(np.asarray(label.dataobj), SMALL(np.random.default_rng([0, 2])).label)


def test_other_modalities_and_small_volumes_are_refused() -> None:
    with pytest.raises(InputError, match=r"modalities \['T1c'\]: expected at least one of FLAIR, T1, CET1, T2"):
        BrainPhantom(modalities=("T1c",))
    with pytest.raises(InputError, match="at least 128 x 128 x 128 mm"):
        BrainPhantom(size=(64, 72, 40))
