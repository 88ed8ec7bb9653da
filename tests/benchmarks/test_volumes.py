from __future__ import annotations

import functools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks import volumes
from benchmarks.volumes import CT_AFFINE, ORGANS, ct_volume, ensure_brain, ensure_ct, tumour_masks

made_once = functools.cache(ct_volume)


@pytest.fixture(autouse=True)
def _one_ct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the CT once for all tests; it takes seconds."""
    monkeypatch.setattr(volumes, "ct_volume", made_once)


def test_a_ct_has_a_body_with_organs_in_air(tmp_path: Path) -> None:
    files = ensure_ct(tmp_path)
    scan, truth = map(nib.load, files)
    assert scan.shape == truth.shape == (320, 320, 100)
    assert np.array_equal(scan.affine, CT_AFFINE) and scan.get_data_dtype() == np.int16
    hounsfield, organs = np.asarray(scan.dataobj), np.asarray(truth.dataobj)
    assert np.unique(organs).tolist() == list(range(len(ORGANS) + 1))
    assert hounsfield[:10].max() < -900  # air
    assert 0.4 < (hounsfield > -500).mean() < 0.7  # body
    assert 8e6 < files[0].stat().st_size < 14e6  # 20 MB of voxels: noise does not compress

    written = files[0].read_bytes()
    ensure_ct(tmp_path)  # exists already
    assert files[0].read_bytes() == written


def test_a_larger_ct_repeats_the_same_content(tmp_path: Path) -> None:
    scan = nib.load(ensure_ct(tmp_path, copies=(1, 1, 2))[0])
    hounsfield = np.asarray(scan.dataobj)
    assert scan.shape == (320, 320, 200)
    assert np.array_equal(hounsfield[..., :100], hounsfield[..., 100:])


def test_the_background_of_a_brain_is_zero(tmp_path: Path) -> None:
    image, label = (np.asarray(nib.load(file).dataobj) for file in ensure_brain(tmp_path, (60, 60, 40)))
    assert image.shape == (60, 60, 40, 4) and np.unique(label).tolist() == [0, 1, 2, 3]
    brain = image.any(-1)
    assert 0.15 < brain.mean() < 0.25 and brain[label > 0].all()


def test_tumour_masks_have_the_size_of_a_tumour() -> None:
    prediction, truth = tumour_masks((120, 120, 78))
    assert 0.01 < truth.mean() < 0.02 and 0.01 < prediction.mean() < 0.02
    assert 0.8 < 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()) < 0.98
