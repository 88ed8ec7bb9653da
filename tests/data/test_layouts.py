"""Test the layouts of public data of gliomas, livers and lungs; cases and folders are tested with their readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.data import load_cases
from common.data.datalist import write_datalist
from common.data.layouts import TIME_POINT
from common.errors import InputError
from common.methods.omnet.label_codes import LABEL_CODES

from .layouts import NAMES, brats, listed, touch


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
