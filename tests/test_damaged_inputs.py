"""Test that a damaged scan is read correctly or refused in one line with its name and the reason.

The other cases of the batch are still processed.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

from common import memory
from common.data import CaseDataset, VolumeReader
from common.data.volumes import read_volume
from common.doctor import Findings, examine_data
from common.engines import CaseEvaluator
from common.errors import InputError
from common.inferers import WindowInferer
from common.memory import Memory
from common.transforms import ResampleAxesd, ReturnToScand

from .damaged import AFFINE, VOLUME, Damaged, damaged_files, damaged_series, nifti
from .doctor.conftest import write_bundle

FILES = 200

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from the wrappers of itk


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the memory to 1.5 of 2 GB, so that the results are the same on every machine."""
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(1_500_000_000, 2_000_000_000))


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[Damaged]:
    """Return the damaged NIfTI, MetaImage and NRRD files."""
    return damaged_files(tmp_path_factory.mktemp("damaged"), FILES)


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Damaged]:
    """Return the damaged DICOM series."""
    pytest.importorskip("itk", reason="DICOM needs itk")
    from .dicom_series import write_series

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the damage
        return damaged_series(tmp_path_factory.mktemp("series"), write_series)


def says_why(message: str, path: Path) -> bool:
    """Return whether a message is one line with the file's name followed by a reason."""
    place, found, reason = message.partition(str(path))
    return not place and bool(found) and len(reason.partition(": ")[2]) > 10 and "\n" not in message


def same(array: np.ndarray, affine: np.ndarray) -> bool:
    """Return whether an array has the original voxels at the same positions, in any order of axes."""
    one, other = (nib.as_closest_canonical(nib.Nifti1Image(*v)) for v in ((array, affine), (VOLUME, AFFINE)))
    voxels = np.array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    return voxels and np.allclose(one.affine, other.affine, atol=1e-4)


def outcome(one: Damaged) -> str | None:
    """Read a damaged scan, and return a fault of the result or of the error message, or None."""
    try:
        array, affine = read_volume(one.path)
    except InputError as error:
        return None if says_why(str(error), one.path) else f"{one.path.name}: {error}"
    except Exception as error:
        return f"{one.path.name}: {type(error).__name__}: {error}"
    if not np.isfinite(array).all() or not np.isfinite(affine).all() or array.ndim not in (3, 4):
        return f"{one.path.name}: read with shape {array.shape}, expected 3 or 4 axes and finite values"
    if one.whole and not same(array, affine):
        return f"{one.path.name}: read, but not with the original voxels"
    return None


@pytest.mark.slow
def test_a_damaged_file_is_read_correctly_or_refused(damaged: list[Damaged]) -> None:
    assert len(damaged) == FILES
    assert [fault for one in damaged if (fault := outcome(one))] == []


@pytest.mark.slow
def test_a_damaged_series_is_read_correctly_or_refused(series: list[Damaged]) -> None:
    assert [fault for one in series if (fault := outcome(one))] == []


class OneLayer(torch.nn.Module):
    """Apply one convolution, which accepts any scan of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.slow
def test_inference_processes_all_good_cases(damaged: list[Damaged], series: list[Damaged], tmp_path: Path) -> None:
    bad = [*damaged[::3], *series[::5]]
    places = range(0, len(bad), 20)
    cases = [{"case": f"bad{n}", "image": str(one.path)} for n, one in enumerate(bad)]
    for n in places:
        (tmp_path / f"good{n}.nii").write_bytes(nifti())
        cases.insert(n, {"case": f"good{n}", "image": str(tmp_path / f"good{n}.nii")})
    steps = [
        LoadImaged("image", reader=VolumeReader(["CT"])),
        EnsureChannelFirstd("image"),
        ResampleAxesd("image", pixdim=(4.0, 4.0, 4.0)),
    ]
    done: list[str] = []

    def finish(case: dict) -> dict:
        done.append(case["case"])
        return ReturnToScand("pred")(case)

    evaluator = CaseEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(CaseDataset(cases, Compose(steps)), batch_size=1),
        network=OneLayer(),
        inferer=WindowInferer((8, 8, 8)),
        postprocessing=finish,
    )
    with pytest.raises(InputError) as error:
        evaluator.run()
    assert {f"good{n}" for n in places} <= set(done)
    assert str(error.value).startswith(f"{len(cases) - len(done)} of {len(cases)} cases failed")
    failed = evaluator.failures
    assert failed.keys() | set(done) == {case["case"] for case in cases}
    assert [message for case in cases if (message := failed.get(case["case"])) and "internal error" in message] == []
    assert all(says_why(failed[case["case"]], Path(case["image"])) for case in cases if case["case"] in failed)


@pytest.mark.slow
@pytest.mark.parametrize("headers_only", [False, True])
def test_doctor_reports_damaged_cases(
    damaged: list[Damaged], series: list[Damaged], tmp_path: Path, headers_only: bool
) -> None:
    folder = tmp_path / "bundle"
    write_bundle(folder, modalities=["CT"], channels=1)
    bad = [*damaged[1::3], *series[1::5]]
    for n, one in enumerate(bad):
        (tmp_path / "scans" / f"case{n:03d}").mkdir(parents=True)
        target = tmp_path / "scans" / f"case{n:03d}" / one.path.name
        target.symlink_to(one.path, target_is_directory=one.path.is_dir())
    (tmp_path / "scans" / "good").mkdir()
    (tmp_path / "scans" / "good" / "good.nii").write_bytes(nifti())
    findings = Findings()
    lines = examine_data(findings, folder, tmp_path / "scans", headers_only=headers_only)
    assert any(line.startswith("inference of the largest case") for line in lines)
    failed = {where: what for kind, where, what in findings.found if kind == "failure"}
    assert "scans good" not in failed and len(failed) > 20
    assert all(str(tmp_path) in what and "internal error" not in what for what in failed.values())
