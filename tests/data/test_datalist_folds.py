"""Test classes, patients and sites in the folds of a data list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.data import load_cases
from common.data.case_table import read_case_classes
from common.data.datalist import write_datalist
from common.errors import InputError, UsageError

from .layouts import touch

# Classes.


@pytest.fixture
def stomachs(tmp_path: Path) -> Path:
    """Write twenty cases, six of them negative; each two positive cases have one patient."""
    root = tmp_path / "data"
    touch(root, *(f"{kind}Tr/c{i}.nii.gz" for kind in ("images", "labels") for i in range(20)))
    rows = [f"c{i},{'negative' if i < 6 else 'positive'},{f'p{i // 2}' if i >= 6 else ''}" for i in range(20)]
    (tmp_path / "classes.csv").write_text("\ufeffcase,class, patient\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return root


def with_classes(root: Path, **options: int | str) -> dict[str, list[dict]]:
    write_datalist("nnunet", root, root.parent / "dataset.json", classes=root.parent / "classes.csv", **options)
    return {section: load_cases(root.parent, section) for section in ("training", "validation", "test")}


def test_each_fold_has_its_share_of_every_class(stomachs: Path) -> None:
    for seed in range(3):
        tested: list[str] = []
        for fold in range(3):
            sections = with_classes(stomachs, folds=3, fold=fold, seed=seed)
            cases = [case for section in sections.values() for case in section]
            assert {case["case"]: case["class"] for case in cases} == {
                f"c{i}": "negative" if i < 6 else "positive" for i in range(20)
            }
            patients = [{case["patient"] for case in section if "patient" in case} for section in sections.values()]
            assert len(set.union(*patients)) == sum(map(len, patients)) == 7
            count = {name: Counter(case["class"] for case in section) for name, section in sections.items()}
            assert count["test"]["negative"] == 2 and count["test"]["positive"] in (4, 6)
            assert count["validation"]["negative"] == 1 and count["validation"]["positive"] in (2, 4)
            tested += [case["case"] for case in sections["test"]]
        assert len(set(tested)) == len(tested) == 20
    assert with_classes(stomachs, folds=3, seed=1) != with_classes(stomachs, folds=3, seed=2)


def test_without_classes_cases_are_dealt_in_random_order(stomachs: Path) -> None:
    out = stomachs.parent / "dataset.json"
    cases = [case for section in write_datalist("nnunet", stomachs, out, folds=4, seed=5).values() for case in section]
    names = sorted(f"c{i}" for i in range(20))  # as the folder's files are listed
    expected = {names[index]: position % 4 for position, index in enumerate(np.random.default_rng(5).permutation(20))}
    assert {Path(case["label"]).name[:-7]: case["fold"] for case in cases} == expected
    assert not any("class" in case for case in cases)


def test_a_class_may_be_a_number_and_a_case_a_folder(tmp_path: Path) -> None:
    for i in range(3):
        touch(tmp_path / "data" / f"P{i}", "ct.nii.gz", "mask.nii.gz")
    (tmp_path / "classes.csv").write_text("class,case\n2,P0\n0,P1\nCOVID-19,P2\n\n")
    write_datalist("folders", tmp_path / "data", tmp_path / "dataset.json", folds=3, classes=tmp_path / "classes.csv")
    cases = [case for section in ("training", "validation", "test") for case in load_cases(tmp_path, section)]
    assert {case["case"]: case["class"] for case in cases} == {"P0": 2, "P1": 0, "P2": "COVID-19"}


ROWS = "".join(f"c{i},positive\n" for i in range(20))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "classes.csv: cannot be read .No such file"),
        (
            "name,class\nc0,positive\n",
            "classes.csv: found the columns name, class; expected case and one or more of class, patient, site",
        ),
        ("case;class\nc0;positive\n", "classes.csv: found the columns case;class; expected .* separated by commas"),
        ("", "classes.csv: found the columns none"),
        ("case,class\n" + ROWS + "c3,negative\n", "classes.csv: c3 has two rows"),
        ("case,class\n" + ROWS.replace("c7,positive", "c7,"), "row 8 has no class"),
        ("case,class\n" + ROWS.replace("c7,positive", "c7"), "row 8 has no class"),
        ("case,class\n" + ROWS + ",positive\n", "row 21 has no case"),
        ("case,class,class\n" + ROWS.replace("tive\n", "tive,left\n"), "2 columns 'class', expected one"),
        ("case,class\n" + ROWS.replace("c7,positive", "c7,positive, left"), "row 8 has 3 cells, expected 2"),
        (
            "case,class\n" + ROWS.replace("c7,positive", "c7,Positive"),
            "'class' has positive and Positive, expected one",
        ),
        (
            "case,class\n" + "c0,positive\nc1,positive\n",
            "no row for c10, c11, c12 and 15 more, labelled cases in .*data",
        ),
        (
            "case,class\n" + ROWS + "c20,positive\n",
            "rows for c20, which are not labelled cases in .*data; found c0, c1, c10",
        ),
    ],
)
def test_classes_that_do_not_fit(stomachs: Path, content: str | None, message: str) -> None:
    path = stomachs.parent / "classes.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=message):
        with_classes(stomachs)
    path.write_bytes(b"case,class\nM\xfcller,positive\n")  # Latin-1
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        with_classes(stomachs)
    assert not (stomachs.parent / "dataset.json").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_classes_in_each_encoding_of_unicode(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_bytes("case,class\r\nM\u00fcller,positive\r\nsiteA/P1,2\r\n".encode(encoding))
    assert read_case_classes(path) == {"M\u00fcller": {"class": "positive"}, "siteA_P1": {"class": 2}}


# Sites.


@pytest.fixture
def sited(tmp_path: Path) -> Path:
    """Write eleven cases: six of site north, two of east, two of south, one of west; c0 and c1 have one patient."""
    root = tmp_path / "data"
    touch(root, *(f"{kind}Tr/c{i}.nii.gz" for kind in ("images", "labels") for i in range(11)))
    sites = ["north"] * 6 + ["east"] * 2 + ["south"] * 2 + ["west"]
    rows = [f"c{i},{site},{'A' if i < 2 else ''}" for i, site in enumerate(sites)]
    (tmp_path / "classes.csv").write_text("case,site,patient\n" + "\n".join(rows) + "\n")
    return root


def folds_by_site(root: Path, **options: int | str) -> dict[str, set[int]]:
    """Return the folds of each site."""
    sections = with_classes(root, **options, by="site")
    found: dict[str, set[int]] = {}
    for case in (case for section in sections.values() for case in section):
        found.setdefault(case["site"], set()).add(case["fold"])
    return found


def test_cases_of_one_site_stay_in_one_fold(sited: Path) -> None:
    for seed in range(3):
        folds = folds_by_site(sited, folds=2, seed=seed)
        assert all(len(of_site) == 1 for of_site in folds.values())
        (north,) = folds["north"]
        assert [site for site, of_site in folds.items() if of_site == {north}] == ["north"]  # 6 cases, 5 others


def test_a_single_site_is_named(sited: Path) -> None:
    table = sited.parent / "classes.csv"
    table.write_text("case,site\n" + "".join(f"c{i},north\n" for i in range(11)))
    with pytest.raises(UsageError, match=r"--by site: .*classes\.csv has one site, north, .*leave --by out"):
        with_classes(sited, by="site")


def test_each_site_is_a_fold_unless_there_are_more_than_five(sited: Path) -> None:
    folds = folds_by_site(sited)
    assert sorted(folds.values(), key=min) == [{0}, {1}, {2}, {3}]


def test_scans_of_a_patient_stay_together_with_folds_by_site(sited: Path) -> None:
    folds_by_site(sited, fold=1)
    cases = [case for section in ("training", "validation", "test") for case in load_cases(sited.parent, section)]
    orders = {case["case"]: case["order"] for case in cases}
    assert orders["c0"] == orders["c1"] and len(set(orders.values())) == 10


def test_sites_that_give_no_folds_are_refused(sited: Path) -> None:
    with pytest.raises(InputError, match=r"--folds 5, .*expected 2 to 4 folds, the number of sites"):
        folds_by_site(sited, folds=5)
    with pytest.raises(UsageError, match="--by centre: expected --by patient or --by site"):
        with_classes(sited, by="centre")
    with pytest.raises(UsageError, match=r"--by site, --splits splits.json"):
        with_classes(sited, by="site", splits="splits.json")
    table = sited.parent / "classes.csv"
    text = table.read_text()
    table.write_text(text.replace("c9,south", "c9,"))
    with pytest.raises(InputError, match=r"classes.csv: no site for c9"):
        folds_by_site(sited)
    table.write_text(text.replace("c1,north", "c1,east"))
    with pytest.raises(InputError, match="patient A has scans from the sites east, north"):
        folds_by_site(sited)
