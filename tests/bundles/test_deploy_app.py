"""Run the application of the page on MONAI Deploy as it is written.

``DEPLOY_PYTHON`` is the Python of an environment with MONAI Deploy's App SDK, which needs other packages than this one.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import run

from ..dicom_series import pydicom, voxels_of_segments, write_series
from ..methods.mamtln.tiny import MAMTLN_CT
from ..methods.mpunet.tiny import MPUNET

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "monai-deploy.md"
DEPLOY_PYTHON = os.environ.get("DEPLOY_PYTHON")


def app_of_page() -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "Application" in block)


def test_application_has_less_than_60_lines() -> None:
    ast.parse(app_of_page())
    assert app_of_page().count("\n") < 60


def with_numbers(header: pydicom.Dataset, k: int) -> None:
    header.SeriesNumber = 1
    header.StudyID = header.AccessionNumber = "1"
    header.StudyTime = "120000"
    header.SeriesDescription = "CT"


@pytest.mark.slow
@pytest.mark.skipif(DEPLOY_PYTHON is None, reason="DEPLOY_PYTHON names no Python with MONAI Deploy's App SDK")
@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI's, of any config
@pytest.mark.parametrize("stretch", [1.0, 2.0], ids=["square", "not square"])
@pytest.mark.parametrize("bundle", [MPUNET, MAMTLN_CT], ids=lambda bundle: bundle.name)
def test_application_writes_the_mask_of_a_run(
    bundle: Path, stretch: float, packed: Callable, cohort: Callable, tmp_path: Path
) -> None:
    assert DEPLOY_PYTHON is not None
    package = Path(shutil.copytree(packed(bundle), tmp_path / "package"))
    config = json.loads((package / "configs" / "inference.json").read_text())
    (package / "configs" / "inference.json").write_text(json.dumps({**config, "precision": "float32"}))
    scan = nib.load(min((cohort(bundle) / "images").iterdir()))
    affine = scan.affine @ np.diag([stretch, 1.0, 1.0, 1.0])
    write_series(tmp_path / "scan", np.asarray(scan.dataobj).astype(np.int16), affine, with_numbers)
    (tmp_path / "app.py").write_text(app_of_page())
    command = [DEPLOY_PYTHON, "app.py", "-i", "scan", "-m", str(package), "-o", "out"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)

    options = {"dataset_dir": str(tmp_path / "scan"), "output_dir": str(tmp_path / "own"), "device": "cpu"}
    run(config_file=str(package / "configs" / "inference.json"), logging_file=False, **options)
    (mask,) = (nib.load(path) for path in (tmp_path / "own").glob("*_seg.nii.gz"))
    expected = set(map(tuple, np.argwhere(np.asarray(mask.dataobj) == 1).tolist()))
    (segmentation,) = (tmp_path / "out").glob("*.dcm")
    (found,) = voxels_of_segments(segmentation, mask.affine)
    assert expected
    assert found == expected
    (segment,) = pydicom.dcmread(segmentation).SegmentSequence
    assert [segment.SegmentLabel] == list(config["labels"])
    assert (tmp_path / "out" / "class.json").exists() == (bundle == MAMTLN_CT)
