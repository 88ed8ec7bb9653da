"""A damaged scan is read rightly, or refused in one line that names it and says why; no other case is lost."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common import memory
from common.data.volumes import read_volume
from common.errors import InputError
from common.memory import Memory

from .damaged import AFFINE, VOLUME, Damaged, damaged_files, damaged_series

FILES = 200

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the answers be the same on every machine."""
    monkeypatch.setattr(memory, "main_memory", lambda: Memory(1_500_000_000, 2_000_000_000))


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[Damaged]:
    return damaged_files(tmp_path_factory.mktemp("damaged"), FILES)


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Damaged]:
    pytest.importorskip("itk", reason="DICOM needs itk")
    from .dicom_series import write_series

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is wrong
        return damaged_series(tmp_path_factory.mktemp("series"), write_series)


def says_why(message: str, path: Path) -> bool:
    """Return whether a message is one line that names the file and has a reason behind it."""
    place, found, reason = message.partition(str(path))
    return not place and bool(found) and len(reason.partition(": ")[2]) > 10 and "\n" not in message


def same(array: np.ndarray, affine: np.ndarray) -> bool:
    """Return whether these are the original voxels in their places, along whatever axes."""
    one, other = (nib.as_closest_canonical(nib.Nifti1Image(*v)) for v in ((array, affine), (VOLUME, AFFINE)))
    voxels = np.array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    return voxels and np.allclose(one.affine, other.affine, atol=1e-4)


def outcome(one: Damaged) -> str | None:
    """Read one: the fault of the answer, if it has one."""
    try:
        array, affine = read_volume(one.path)
    except InputError as error:
        return None if says_why(str(error), one.path) else f"{one.path.name}: {error}"
    except Exception as error:
        return f"{one.path.name}: {type(error).__name__}: {error}"
    if not np.isfinite(array).all() or not np.isfinite(affine).all() or array.ndim not in (3, 4):
        return f"{one.path.name}: read as {array.shape}, not finite"
    if one.whole and not same(array, affine):
        return f"{one.path.name}: read, but not as it was"
    return None


def test_a_damaged_file_is_read_rightly_or_refused(damaged: list[Damaged]) -> None:
    assert len(damaged) == FILES
    assert [fault for one in damaged if (fault := outcome(one))] == []


def test_a_damaged_series_is_read_rightly_or_refused(series: list[Damaged]) -> None:
    assert [fault for one in series if (fault := outcome(one))] == []
