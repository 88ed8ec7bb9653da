"""Test the phantom of any modalities."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data import load_cases
from common.phantoms import BodyPhantom, write_cohort
from common.transforms import CheckHounsfieldd, CheckMRId


@pytest.mark.parametrize(("name", "check"), [("CT", CheckHounsfieldd), ("ADC map", CheckMRId)])
def test_its_values_are_those_of_the_modality(name: str, check: type) -> None:
    case = BodyPhantom(modalities=[name])(np.random.default_rng(0))
    check("image")({"image": torch.from_numpy(case.images[name])[None]})
    assert 0.01 < case.label.mean() < 0.1


def test_names_of_modalities_may_hold_any_character(tmp_path: Path) -> None:
    names, spacing = ["PET/CT", "T1 post"], (1.5, 2.0, 2.5)
    write_cohort(BodyPhantom(modalities=names, spacing=spacing), tmp_path / "cases", cases=3)
    (case,) = load_cases(tmp_path / "cases", "test", names)
    assert [Path(file).name for file in case["image"]] == ["case_002_PET_CT.nii.gz", "case_002_T1_post.nii.gz"]
    assert nib.load(case["image"][0]).header.get_zooms() == spacing
