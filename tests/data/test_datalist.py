"""The layouts of public data of gliomas, livers and lungs, and classes; the others are tested with the cases that
read their lists."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from common.data import load_cases
from common.data.datalist import read_case_classes, write_datalist
from common.data.layouts import TIME_POINT
from common.errors import InputError, UsageError
from common.methods.omnet.label_codes import LABEL_CODES

NAMES = ("FLAIR", "T1", "CET1", "T2")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def brats(folder: Path, case: str, ending: str = ".nii.gz", mark: str = "_") -> None:
    """A case in the form of 2017 to 2021, or with other words that of 2023."""
    words = ("flair", "t1", "t1ce", "t2", "seg") if mark == "_" else ("t2f", "t1n", "t1c", "t2w", "seg")
    touch(folder / case, *(f"{Path(case).name}{mark}{word}{ending}" for word in words))


def listed(
    root: Path, layout: str, folds: int = 3, modalities: tuple[str, ...] = NAMES, **options: int
) -> dict[str, dict]:
    """The cases of a list by name, as a training reads them, with their section."""
    out = root.parent / "list" / "dataset.json"
    out.parent.mkdir(exist_ok=True)
    sections = write_datalist(layout, root, out, modalities, folds, **options)
    cases = {}
    for section in [name for name, listed_ in sections.items() if listed_]:
        for case in load_cases(out.parent, section, modalities):
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            case["files"] = [Path(p).name for p in [*images, case["label"]]]
            assert case["case"] not in cases
            cases[case["case"]] = {**case, "section": section}
    return cases


@pytest.mark.parametrize("own_folders", [True, False])
def test_brats_2015(tmp_path: Path, own_folders: bool) -> None:
    root = tmp_path / "BRATS2015_Training"
    patients = ("2013_pat0001_1", "2013_pat0002_1", "tcia_pat105_0001")
    for i, case in enumerate((*(f"HGG/brats_{name}" for name in patients), "LGG/brats_2013_pat0001_1")):
        for j, word in enumerate(("MR_Flair", "MR_T1", "MR_T1c", "MR_T2", "OT")):
            name = f"VSD.Brain{'_3more' if word == 'OT' else ''}.XX.O.{word}.{54512 + 10 * i + j}"
            touch(root / case / (name if own_folders else ""), f"{name}.mha")
    cases = listed(root, "brats2015")
    both = {"HGG_brats_2013_pat0001_1", "LGG_brats_2013_pat0001_1"}  # two patients of one name
    assert cases.keys() == {*both, "HGG_brats_2013_pat0002_1", "brats_tcia_pat105_0001"}
    assert cases["brats_tcia_pat105_0001"]["files"] == [
        "VSD.Brain.XX.O.MR_Flair.54532.mha",
        "VSD.Brain.XX.O.MR_T1.54533.mha",
        "VSD.Brain.XX.O.MR_T1c.54534.mha",
        "VSD.Brain.XX.O.MR_T2.54535.mha",
        "VSD.Brain_3more.XX.O.OT.54536.mha",
    ]
    assert {case["label_code"] for case in cases.values()} == {"brats2015"}
    assert "/LGG/" in cases["LGG_brats_2013_pat0001_1"]["label"]


@pytest.mark.parametrize("grades", [("HGG/", "LGG/"), ("", "")])
def test_brats_2018(tmp_path: Path, grades: tuple[str, str]) -> None:
    for i, name in enumerate(("Brats18_2013_11_1", "Brats18_CBICA_AQD_1", "Brats18_TCIA02_370_1")):
        brats(tmp_path / "data", grades[i % 2] + name)
    cases = listed(tmp_path / "data", "brats2018")
    assert cases["Brats18_2013_11_1"]["files"] == [
        f"Brats18_2013_11_1_{word}.nii.gz" for word in ("flair", "t1", "t1ce", "t2", "seg")
    ]
    assert len(cases) == 3 and {case["label_code"] for case in cases.values()} == {"brats"}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_brats_2020_and_the_case_whose_label_has_another_name(tmp_path: Path, ending: str) -> None:
    root = tmp_path / "data"
    for number in ("001", "002", "355"):
        brats(root, f"BraTS20_Training_{number}", ending)
    odd = root / "BraTS20_Training_355"
    (odd / f"BraTS20_Training_355_seg{ending}").rename(odd / "W39_1998.09.19_Segm.nii")
    touch(root, "name_mapping.csv", "BraTS20_Training_001/._BraTS20_Training_001_t1.nii")
    cases = listed(root, "brats2020")
    assert cases["BraTS20_Training_355"]["files"][-1] == "W39_1998.09.19_Segm.nii"
    assert cases["BraTS20_Training_001"]["files"][2:] == [
        f"BraTS20_Training_001_{w}{ending}" for w in ("t1ce", "t2", "seg")
    ]
    assert {case["label_code"] for case in cases.values()} == {"brats"}
    assert len({case["patient"] for case in cases.values()}) == 3


def test_brats_2023(tmp_path: Path) -> None:
    for case in ("00000-000", "00002-000", "00003-000"):
        brats(tmp_path / "data", f"BraTS-GLI-{case}", mark="-")
    cases = listed(tmp_path / "data", "brats2023")
    assert cases["BraTS-GLI-00002-000"]["files"] == [
        f"BraTS-GLI-00002-000-{word}.nii.gz" for word in ("t2f", "t1n", "t1c", "t2w", "seg")
    ]
    assert {case["label_code"] for case in cases.values()} == {"brats2023"}


def test_decathlon_brain_tumours(tmp_path: Path) -> None:
    root = tmp_path / "Task01_BrainTumour"
    touch(root, *(f"{kind}Tr/BRATS_00{i}.nii.gz" for kind in ("images", "labels") for i in range(1, 4)))
    touch(root, "imagesTr/._BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz")
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (root / "dataset.json").write_text(json.dumps(description))
    out = tmp_path / "dataset.json"
    lists = write_datalist("msd_task01", root, out, NAMES, 3)
    cases = [case for section in lists for case in load_cases(tmp_path, section, NAMES)]
    assert sorted(case["case"] for case in cases) == ["BRATS_001", "BRATS_002", "BRATS_003"]
    assert {case["label_code"] for case in cases} == {"msd_task01"} and isinstance(cases[0]["image"], str)

    with pytest.raises(InputError, match="its channels do not have the order T1, FLAIR, CET1, T2"):
        write_datalist("msd_task01", root, out, ("T1", "FLAIR", "CET1", "T2"), 3)
    description["labels"] = {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing"}
    (root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="label 1 is necrosis, expected oedema in layout msd_task01"):
        write_datalist("msd_task01", root, out, NAMES, 3)


def test_label_codes_of_layouts_are_known_to_the_transform(tmp_path: Path) -> None:
    for i in range(3):
        brats(tmp_path / "data", f"P{i}")
    for layout in ("brats2015", "brats2018", "brats2020", "brats2023"):
        assert {case["label_code"] for case in listed(tmp_path / "data", layout).values()} <= LABEL_CODES.keys()
    assert "msd_task01" in LABEL_CODES


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("BraTS-GLI-00005-001", "BraTS-GLI-00005"),
        ("brats_tcia_pat153_0181", "brats_tcia_pat153"),
        ("brats_2013_pat0001_1", "brats_2013_pat0001"),
        ("Brats18_TCIA02_370_1", "Brats18_TCIA02_370"),
        ("Brats17_CBICA_AAB_1", "Brats17_CBICA_AAB"),
        ("BraTS20_Training_001", None),
        ("BraTS2021_00017", None),
        ("P_12", None),
    ],
)
def test_names_that_tell_the_patient(name: str, patient: str | None) -> None:
    found = TIME_POINT.fullmatch(name)
    assert (found and found[1]) == patient


def test_time_points_of_a_patient_stay_together(tmp_path: Path) -> None:
    scans = [(patient, scan) for patient in range(8) for scan in range(1 + patient % 3)]
    for patient, scan in scans:
        brats(tmp_path / "data", f"BraTS-GLI-{patient:05d}-{scan:03d}", mark="-")
    for seed in range(3):
        tested: list[str] = []
        for fold in range(4):
            cases = listed(tmp_path / "data", "brats2023", 4, fold=fold, seed=seed)
            assert len(cases) == len(scans)
            sections: dict[str, set[str]] = {}
            for case in cases.values():
                sections.setdefault(case["patient"], set()).add(case["section"])
            assert all(len(names) == 1 for names in sections.values()), sections
            assert sum(names == {"test"} for names in sections.values()) == 2
            assert sum(names == {"validation"} for names in sections.values()) == 2
            tested += [name for name, case in cases.items() if case["section"] == "test"]
        assert len(tested) == len(set(tested)) == len(scans)
    with pytest.raises(InputError, match=r"--folds 9, .*expected 2 to 8 folds.*\(15 labelled cases in"):
        write_datalist("brats2023", tmp_path / "data", tmp_path / "dataset.json", NAMES, folds=9)


def test_the_papers_name_of_a_modality_is_the_collections(tmp_path: Path) -> None:
    for i in range(3):
        brats(tmp_path / "data", f"P{i}")
    write_datalist("brats2020", tmp_path / "data", tmp_path / "dataset.json", ("FLAIR", "T1", "T1c", "T2"), 3)
    listing = json.loads((tmp_path / "dataset.json").read_text())
    assert list(listing["modality"].values()) == list(NAMES)
    assert [Path(p).name for p in listing["test"][0]["image"]][2].endswith("_t1ce.nii.gz")


def test_cases_that_are_not_complete(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "dataset.json"
    root.mkdir()
    with pytest.raises(InputError, match="data: no scans; expected a folder for each case"):
        write_datalist("brats2018", root, out, NAMES)
    for i in range(3):
        brats(root, f"P{i}")
    (root / "P1" / "P1_t1ce.nii.gz").unlink()
    with pytest.raises(InputError, match=r"P1: no CET1 among P1_flair.nii.gz, P1_t1.nii.gz, P1_t2.nii.gz"):
        write_datalist("brats2018", root, out, NAMES)
    (root / "P1" / "P1_seg.nii.gz").unlink()
    with pytest.raises(
        InputError, match=r"P1: 0 label files \(among P1_flair.nii.gz, .*expected a folder for each case"
    ):
        write_datalist("brats2018", root, out, NAMES)
    assert not out.exists()


# Livers.


def test_lits_in_several_folders(tmp_path: Path) -> None:
    root = tmp_path / "data"
    touch(root, "Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii")
    touch(
        root, "Training Batch 2/volume-28.nii.gz", "masks/segmentation-28.nii", "volume-7.nii", "Segmentation-7.nii.gz"
    )
    touch(root, "Test/test-volume-3.nii", "._volume-9.nii", "volume-5.txt")
    cases = listed(root, "lits", modalities=("CT",))
    assert {name: case["files"] for name, case in cases.items()} == {
        "volume-0": ["volume-0.nii", "segmentation-0.nii"],
        "volume-7": ["volume-7.nii", "Segmentation-7.nii.gz"],
        "volume-28": ["volume-28.nii.gz", "segmentation-28.nii"],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.nii",), r"data: no volume-N.nii and segmentation-N.nii \(or .nii.gz\) in this folder or below"),
        (("volume-1.nii", "segmentation-1.nii", "volume-2.nii"), "no segmentation-N with the number of volume-2.nii"),
        (
            ("volume-1.nii", "segmentation-1.nii", "b/segmentation-2.nii.gz"),
            "no volume-N with the number of segmentation-2.nii.gz",
        ),
        (("a/volume-1.nii", "b/volume-1.nii.gz", "segmentation-1.nii"), "a/volume-1.nii and .*b/volume-1.nii.gz: two"),
    ],
)
def test_lits_that_is_not_complete(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path / "data", *names)
    with pytest.raises(InputError, match=message):
        write_datalist("lits", tmp_path / "data", tmp_path / "dataset.json", folds=2)


@pytest.mark.parametrize("second", ["cancer", "Liver tumour", "tumor"])
def test_decathlon_livers(tmp_path: Path, second: str) -> None:
    root, out = tmp_path / "Task03_Liver", tmp_path / "dataset.json"
    touch(root, *(f"{kind}Tr/liver_{i}.nii.gz" for kind in ("images", "labels") for i in range(3)))
    description = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": second}}
    (root / "dataset.json").write_text(json.dumps(description))
    write_datalist("msd_task03", root, out, ("CT",), folds=3)
    assert load_cases(tmp_path, "test", ("CT",))[0]["case"].startswith("liver_")

    description["labels"] = {"0": "background", "1": "pancreas", "2": "cancer"}
    (root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="label 1 is pancreas, expected liver in layout msd_task03"):
        write_datalist("msd_task03", root, out, folds=3)
    description["labels"] = {"0": "background", "1": "liver", "2": "vessel"}
    (root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="label 2 is vessel, expected tumour in layout msd_task03"):
        write_datalist("msd_task03", root, out, folds=3)


# Lungs.


def test_mosmed_studies_with_a_mask(tmp_path: Path) -> None:
    root = tmp_path / "COVID19_1110"
    touch(root, *(f"studies/CT-{i}/study_000{n}.nii.gz" for i, n in ((0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6))))
    touch(root, *(f"masks/study_000{n}_mask.nii.gz" for n in (2, 3, 5)), "README_EN.md", "dataset_registry.xlsx")
    cases = listed(root, "mosmed", modalities=("CT",))
    assert {name: (*case["files"], case["class"]) for name, case in cases.items()} == {
        "study_0002": ("study_0002.nii.gz", "study_0002_mask.nii.gz", "normal"),
        "study_0003": ("study_0003.nii.gz", "study_0003_mask.nii.gz", "COVID-19"),
        "study_0005": ("study_0005.nii.gz", "study_0005_mask.nii.gz", "COVID-19"),
    }


def test_covid_ct_seg_without_what_is_not_in_hu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "data"
    scans = ("coronacases_001.nii.gz", "coronacases_org_002.nii", "coronacases_010.nii.gz", "radiopaedia_7_85703_0.nii")
    touch(root, *(f"COVID-19-CT-Seg_20cases/{name}" for name in scans))
    for folder in ("Infection_Mask", "Lung_Mask", "Lung_and_Infection_Mask"):
        touch(root, *(f"{folder}/{name.replace('_org', '')}" for name in scans))
    cases = listed(root, "covid_ct_seg", modalities=("CT",))
    assert {name: Path(case["label"]).parts[-2:] for name, case in cases.items()} == {
        "coronacases_001": ("Infection_Mask", "coronacases_001.nii.gz"),
        "coronacases_org_002": ("Infection_Mask", "coronacases_002.nii"),
        "coronacases_010": ("Infection_Mask", "coronacases_010.nii.gz"),
    }
    assert {case["class"] for case in cases.values()} == {"COVID-19"}
    assert "ignored, because they are not in HU: radiopaedia_7_85703_0.nii" in caplog.text


@pytest.mark.parametrize(
    ("layout", "names", "message"),
    [
        ("mosmed", ("studies/CT-0/study_0001.nii.gz",), "data: no study_N_mask.nii.gz in this folder or below"),
        ("mosmed", ("masks/study_0001_mask.nii.gz",), r"no study_N with the number of study_0001_mask.nii.gz"),
        (
            "mosmed",
            ("CT-1/study_0001.nii.gz", "CT-2/study_0001.nii.gz", "study_0001_mask.nii.gz"),
            "CT-1/study_0001.nii.gz and .*CT-2/study_0001.nii.gz: two files",
        ),
        ("covid_ct_seg", ("coronacases_001.nii.gz",), "data: no coronacases_N.nii.gz in COVID-19-CT-Seg_20cases and"),
        (
            "covid_ct_seg",
            ("COVID-19-CT-Seg_20cases/coronacases_001.nii.gz",),
            "no Infection_Mask/coronacases_N with the number of",
        ),
        ("covid_ct_seg", ("Infection_Mask/coronacases_001.nii.gz",), "no coronacases_N with the number of"),
    ],
)
def test_lungs_that_are_not_complete(tmp_path: Path, layout: str, names: tuple[str, ...], message: str) -> None:
    touch(tmp_path / "data", *names)
    with pytest.raises(InputError, match=message):
        write_datalist(layout, tmp_path / "data", tmp_path / "dataset.json", folds=2)


# Classes.


@pytest.fixture
def stomachs(tmp_path: Path) -> Path:
    """Twenty cases, six of them negative; of the positive, every two are of a patient."""
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
    """Eleven cases: six of site north, two of east, two of south, one of west; c0 and c1 are of one patient."""
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
    with pytest.raises(UsageError, match=r"--by site and --splits splits.json"):
        with_classes(sited, by="site", splits="splits.json")
    table = sited.parent / "classes.csv"
    text = table.read_text()
    table.write_text(text.replace("c9,south", "c9,"))
    with pytest.raises(InputError, match=r"classes.csv: no site for c9"):
        folds_by_site(sited)
    table.write_text(text.replace("c1,north", "c1,east"))
    with pytest.raises(InputError, match="patient A has scans from the sites east, north"):
        folds_by_site(sited)


# What a data set says of itself, its labels' names, and folds from elsewhere.


@pytest.fixture
def livers(tmp_path: Path) -> Path:
    touch(tmp_path / "in", *(f"{kind}Tr/c{i}.nii.gz" for kind in ("images", "labels") for i in range(6)))
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"modality": "CT"}, None),
        ({"modality": ["CT"]}, None),
        ({"modality": {"CT": 0}}, None),
        ({"modality": None}, None),
        ({"channel_names": {"CT": 0}, "numTraining": "6", "training": 6}, None),
        ({"labels": ["background", "liver", "tumor"]}, None),
        ({"labels": {"background": 0, "liver": 1, "tumor": 2, "all": [1, 2]}}, None),
        ({"labels": {"background": 0, "pancreas": 1}}, "label 1 is pancreas, expected liver in layout msd_task03"),
        ({"labels": 3}, "labels is 3; expected names"),
        ({"modality": {"a": "CT"}}, "modality has the keys a, expected numbers from 0"),
        ({"modality": {"0": 5}}, "modality is .*; expected names"),
        ([1], r"expected an object that describes the data set, found '\[1\]'"),
    ],
)
def test_forms_of_a_data_sets_own_description(livers: Path, content: object, message: str | None) -> None:
    (livers / "dataset.json").write_text(json.dumps(content))
    out = livers.parent / "list" / "dataset.json"
    if message is None:
        write_datalist("msd_task03", livers, out, ("CT",), folds=2)
        assert load_cases(out.parent, "test", ("CT",))
        return
    with pytest.raises(InputError, match=message):
        write_datalist("msd_task03", livers, out, ("CT",), folds=2)


@pytest.mark.parametrize("named", ["CT", ["CT"], {"CT": 0}, {"0": "ct"}])
def test_forms_of_modality_in_a_list(livers: Path, named: object) -> None:
    listing = {"modality": named, "test": [{"image": "imagesTr/c0.nii.gz", "label": "labelsTr/c0.nii.gz"}]}
    (livers / "dataset.json").write_text(json.dumps(listing))
    assert load_cases(livers, "test", ("CT",))[0]["case"] == "c0"
    with pytest.raises(InputError, match=r"modalities (CT|ct), expected T1, T2 in this order"):
        load_cases(livers, "test", ("T1", "T2"))


@pytest.mark.parametrize("label", ["P{}-label", "P{}.seg", "P{} seg", "Segmentation-label", "P{}_gtv", "GTV"])
def test_words_of_a_labels_name(tmp_path: Path, label: str) -> None:
    for i in range(2):
        touch(tmp_path / "in" / f"P{i}", "ct.nii.gz", f"{label.format(i)}.nii.gz")
    cases = listed(tmp_path / "in", "folders", folds=2, modalities=("CT",), validation_share=0)
    assert cases["P0"]["files"] == ["ct.nii.gz", f"{label.format(0)}.nii.gz"]


def test_numbers_of_cases_and_of_channels_are_told_apart(tmp_path: Path) -> None:
    names = ("word_0002", "word_0004", "P_0000", "P_0001", "P_0002")
    touch(tmp_path / "in", *(f"{kind}Tr/{name}.nii.gz" for kind in ("images", "labels") for name in names))
    touch(tmp_path / "in", *(f"imagesTr/kid_010_000{i}.nii.gz" for i in range(4)), "labelsTr/kid_010.nii.gz")
    cases = listed(tmp_path / "in", "nnunet", modalities=NAMES)
    assert cases.keys() == {*names, "kid_010"}
    assert all(cases[name]["files"] == [f"{name}.nii.gz"] * 2 for name in names)
    assert cases["kid_010"]["files"][:-1] == [f"kid_010_000{i}.nii.gz" for i in range(4)]
    (tmp_path / "in" / "imagesTr" / "kid_010_0002.nii.gz").rename(tmp_path / "in" / "imagesTr" / "kid_010_0007.nii.gz")
    with pytest.raises(
        InputError, match=r"kid_010_0003.nii.gz, kid_010_0007.nii.gz in .*; expected one, or one for each"
    ):
        write_datalist("nnunet", tmp_path / "in", tmp_path / "dataset.json", NAMES, 3)


def test_only_a_list_that_nobody_edited_is_replaced(livers: Path) -> None:
    out = livers.parent / "dataset.json"
    for seed in range(2):
        write_datalist("nnunet", livers, out, ("CT",), folds=2, seed=seed)
    written = out.read_text()
    out.write_text(json.dumps(json.loads(written)))  # only laid out anew
    write_datalist("nnunet", livers, out, ("CT",), folds=2)
    edited = out.read_text().replace('"case": "c1"', '"case": "my c1"')
    for content in (edited, '{"description": "see the folder"}', "{}", "[]", "not JSON", ""):
        out.write_text(content)
        with pytest.raises(InputError, match="exists and is not an unchanged list"):
            write_datalist("nnunet", livers, out, ("CT",), folds=2)
        assert out.read_text() == content
    with pytest.raises(InputError, match="exists and is not an unchanged list"):
        write_datalist("nnunet", livers, livers / "imagesTr" / "c0.nii.gz", ("CT",), folds=2)
    with pytest.raises(InputError, match="exists and is not an unchanged list"):
        write_datalist("nnunet", livers, livers, ("CT",), folds=2)


def test_splits_of_nnunet(livers: Path) -> None:
    path, out = livers.parent / "splits_final.json", livers.parent / "dataset.json"
    folds = [["c0", "c3"], ["c1", "c5"], ["c4"], ["c2"]]
    path.write_text(json.dumps([{"train": [], "val": names} for names in folds]))
    write_datalist("nnunet", livers, out, ("CT",), splits=path, fold=1)
    for fold, names in enumerate(folds):
        assert sorted(case["case"] for case in load_cases(out.parent, "test", ("CT",), fold)) == names
    assert sorted(case["case"] for case in load_cases(out.parent, "test", ("CT",))) == folds[1]
    with pytest.raises(UsageError, match=r"--folds 3, but .*splits_final.json has 4 splits; omit --folds"):
        write_datalist("nnunet", livers, out, ("CT",), folds=3, splits=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"val": []}, "expected nnU-Net's splits_final.json"),
        ([{"train": ["c0"]}], "expected nnU-Net's splits_final.json"),
        ([{"val": ["c0", "c1"]}, {"val": ["c1", "c2", "c3", "c4", "c5"]}], "c1 is under val of splits 0 and 1"),
        ([{"val": ["c0", "c1"]}, {"val": ["c2", "c3"]}], "c4, c5 under val of no split"),
        ([{"val": ["c0", "x"]}, {"val": ["c2", "c3"]}], "no labelled case for x; cases are c0, c1, c2 and 3 more"),
    ],
)
def test_splits_that_do_not_fit(livers: Path, content: object, message: str) -> None:
    path = livers.parent / "splits_final.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), splits=path)


def test_the_share_of_validation_in_the_written_lists(livers: Path) -> None:
    lists = write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), folds=2, validation_share=0)
    assert [len(cases) for cases in lists.values()] == [3, 0, 3]
    with pytest.raises(UsageError, match=r"validation_share=1.5: expected a number"):
        write_datalist("nnunet", livers, livers.parent / "dataset.json", ("CT",), folds=2, validation_share=1.5)


def test_a_list_keeps_what_the_data_set_calls_its_labels(tmp_path: Path) -> None:
    root = tmp_path / "Dataset001"
    touch(root, *(f"{kind}Tr/P{i}.nii.gz" for kind in ("images", "labels") for i in range(3)))
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "kidney": 1, "cyst": 2, "whole": [1, 2]}}
    (root / "dataset.json").write_text(json.dumps(description))
    write_datalist("nnunet", root, tmp_path / "lists" / "dataset.json", ("CT",), 3)
    listing = json.loads((tmp_path / "lists" / "dataset.json").read_text())
    assert listing["labels"] == {"1": "kidney", "2": "cyst"}
