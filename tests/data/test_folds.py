"""Test over random cohorts which patients a fold trains, validates and tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.data import load_cases
from common.data.folds import split_by_fold
from common.errors import InputError, UsageError

LIST = Path("dataset.json")


def cohort(seed: int, folds: int | None = None) -> tuple[list[dict], int]:
    """Return cases of 1 to 3 a patient, of 1 to 4 classes, dealt into folds as ``datalist`` deals them."""
    rng = np.random.default_rng(seed)
    folds = folds or int(rng.integers(2, 21))
    patients = int(rng.integers(max(folds, 4), 6 * folds + 4))
    classes = sorted(rng.choice(4, patients, p=rng.dirichlet(np.ones(4))).tolist())
    cases = [
        {"image": f"{place}_{scan}.nii.gz", "fold": place % folds, "order": place, "class": f"class {classes[place]}"}
        for place in range(patients)
        for scan in range(int(rng.integers(1, 4)))
    ]
    return [cases[i] for i in rng.permutation(len(cases))], folds


def splits(cases: list[dict], folds: int, **options: float) -> list[dict[str, list[dict]]]:
    return [split_by_fold(LIST, {"training": cases}, fold, **options) for fold in range(folds)]


def patients(cases: list[dict]) -> set[int]:
    return {case["order"] for case in cases}


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 300), marks=pytest.mark.slow)], ids=str)
def test_random_cohorts_are_split_evenly(seeds: range) -> None:
    for seed in seeds:
        cases, folds = cohort(seed)
        trained: Counter = Counter()
        validations = set()
        for split in splits(cases, folds):
            parts = [patients(split[section]) for section in ("training", "validation", "test")]
            assert all(parts) and sum(map(len, parts)) == len(patients(cases)) == len(set.union(*parts)), seed
            assert sum(map(len, split.values())) == len(cases), seed
            validations.add(frozenset(parts[1]))
            trained.update(parts[0])
            rest = len(parts[0]) + len(parts[1])
            assert abs(len(parts[1]) - rest / 4) <= 0.5 or len(parts[1]) == 1, seed
            others = {(case["order"], case["class"]) for case in split["training"] + split["validation"]}
            for name in {case["class"] for case in cases}:
                count = sum(kind == name for _, kind in others)
                held = len({case["order"] for case in split["validation"] if case["class"] == name})
                assert abs(held - count / 4) < 2, seed
                assert held > 0 or count < 8, seed
        assert len(validations) == folds, seed
        least = min(trained[place] for place in patients(cases))
        assert folds < 3 or least >= 1, seed
        assert folds < 4 or least >= folds / 3, seed


@pytest.mark.parametrize("folds", range(2, 21))
def test_each_fold_validates_on_other_patients(folds: int) -> None:
    for patients_ in (max(folds, 4), 2 * folds + 1, 40):
        cases = [{"image": f"{i}.nii", "fold": i % folds, "order": i} for i in range(patients_)]
        validations = {frozenset(patients(split["validation"])) for split in splits(cases, folds)}
        assert len(validations) == folds


def test_folds_of_any_assignment_are_distinct() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        folds = int(rng.integers(3, 12))
        numbers = rng.permutation([*range(folds), *rng.integers(folds, size=30)]).tolist()
        cases = [{"image": f"{i}.nii", "fold": fold, "order": i} for i, fold in enumerate(numbers)]
        found = splits(cases, folds)
        assert len({frozenset(patients(split["validation"])) for split in found}) == folds
        assert set.union(*(patients(split["training"]) for split in found)) == set(range(len(cases)))


@pytest.mark.parametrize(("share", "held"), [(0, 0), (0.01, 1), (0.1, 2), (0.5, 8), (0.99, 15)])
def test_the_share_of_validation(share: float, held: int) -> None:
    cases = [{"image": f"{i}.nii", "fold": i % 5, "order": i} for i in range(20)]
    for split in splits(cases, 5, validation_share=share):
        assert [len(split[section]) for section in ("training", "validation", "test")] == [16 - held, held, 4]


@pytest.mark.parametrize("share", [1, -0.1, float("nan"), "0.2", True, None])
def test_a_share_that_leaves_no_training(share: object) -> None:
    with pytest.raises(UsageError, match=r"validation_share=.*: expected a number from 0 to below 1"):
        split_by_fold(LIST, {"training": []}, 0, share)  # type: ignore[arg-type]


def test_too_few_patients_or_a_patient_in_two_folds_is_refused() -> None:
    cases = [{"image": f"{i}.nii", "fold": i, "order": i} for i in range(2)]
    with pytest.raises(InputError, match="1 patients outside fold 0, expected at least 2"):
        split_by_fold(LIST, {"training": cases}, 0)
    assert split_by_fold(LIST, {"training": cases}, 0, 0) == {
        "training": cases[1:],
        "validation": [],
        "test": cases[:1],
    }
    with pytest.raises(InputError, match=r"unknown fold 2, expected one of \[0, 1\]"):
        split_by_fold(LIST, {"training": cases}, 2)
    cases[1]["order"] = 0
    with pytest.raises(InputError, match="cases of order 0, one patient, are in several folds"):
        split_by_fold(LIST, {"training": cases}, 0)


def test_without_validation_the_list_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = '{"image": "a.nii", "label": "b.nii"}'
    (tmp_path / "dataset.json").write_text(f'{{"training": [{case}], "validation": [{case}]}}')
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    assert load_cases(tmp_path, "validation", validation_share=0) == []
    assert "validation_share 0 leaves out its 1 validation cases" in caplog.text
    assert len(load_cases(tmp_path, "training", validation_share=0)) == 1


def test_a_fixed_test_set_is_that_of_every_fold() -> None:
    """Expect 144, 48 and 83 cases in each of four folds of 192, and 192, 0 and 83 without validation."""
    cases = [{"image": f"{place}.nii.gz", "fold": place % 4, "order": place} for place in range(192)]
    fixed = [{"image": f"{place}.nii.gz", "fold": "test", "order": place} for place in range(192, 275)]
    for fold, split in enumerate(splits([*fixed, *cases], 4)):
        assert [len(split[section]) for section in ("training", "validation", "test")] == [144, 48, 83]
        assert {case["fold"] for case in split["validation"]} == {fold} and split["test"] == fixed
        assert patients(split["training"]) == {place for place in range(192) if place % 4 != fold}
    without = split_by_fold(LIST, {"test": fixed, "training": cases}, 0, 0)
    assert [len(without[section]) for section in ("training", "validation", "test")] == [192, 0, 83]
    with pytest.raises(InputError, match="no patients for training beside fold 0 and the test set; write more folds"):
        split_by_fold(LIST, {"training": [*cases[::4], *fixed]}, 0)


def test_an_image_that_is_listed_twice_is_refused() -> None:
    """Expect no case in training and test at once."""
    items = [{"case": name, "image": f"{name[0]}.nii.gz", "fold": i % 2, "order": i} for i, name in enumerate("abc")]
    items.append({**items[0], "fold": 1, "order": 3})
    with pytest.raises(InputError, match=r"a\.nii\.gz is listed 2 times"):
        split_by_fold(Path("dataset.json"), {"training": items}, 0)


@pytest.mark.parametrize(
    ("change", "found"), [({"fold": 1.0}, "a case has the fold 1.0"), ({"order": "2"}, "a case has the order '2'")]
)
def test_a_fold_that_is_no_whole_number_is_shown(change: dict, found: str) -> None:
    items = [{"image": f"{i}.nii.gz", "fold": i % 2, "order": i} for i in range(4)]
    with pytest.raises(InputError, match=f"{found}; expected a whole number for each case"):
        split_by_fold(LIST, {"training": [*items, {**items[0], "image": "4.nii.gz", **change}]}, 0)
