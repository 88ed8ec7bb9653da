"""Read volumes of several files, types and grids, and refuse what cannot be read."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import LoadImage, SaveImage

from common.data import AtomicNibabelWriter, VolumeReader
from common.data.volumes import check_grid
from common.errors import InputError

from .volumes import NAMES, SHAPE, VOLUMES, Write, load


def three_files(write: Write) -> list[Path]:
    return [write(f"P_{name}.nii.gz", volume) for name, volume in zip(NAMES, VOLUMES)]


def test_three_files_and_one_4d_file_are_the_same(write_nifti: Write) -> None:
    separate = load(three_files(write_nifti), NAMES)
    stacked = load(write_nifti("P.nii.gz", np.moveaxis(VOLUMES, 0, 3)), NAMES)
    assert separate.shape == (3, *SHAPE)
    np.testing.assert_array_equal(separate.numpy(), VOLUMES)
    np.testing.assert_array_equal(stacked.numpy(), VOLUMES)
    np.testing.assert_array_equal(separate.affine, np.diag([1.5, 0.75, 4, 1]))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<i4", ">f4", "<f8"])
def test_types_and_byte_orders(write_nifti: Write, dtype: str) -> None:
    volume = (VOLUMES[0] % 200).astype(dtype)
    path = write_nifti("P.nii", volume)
    assert load(path, ["CT"]).numpy().tolist() == volume[None].astype(float).tolist()


def test_singleton_axes_of_4d_and_5d_files_do_not_count(write_nifti: Write) -> None:
    assert load(write_nifti("a.nii", VOLUMES[0][..., None]), ["CT"]).shape == (1, *SHAPE)
    vector = np.moveaxis(VOLUMES, 0, 3)[:, :, :, None]
    np.testing.assert_array_equal(load(write_nifti("b.nii", vector), NAMES).numpy(), VOLUMES)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOLUMES[0], np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(load(tmp_path / "a.nii", ["CT"]).numpy()[0], 0.5 * VOLUMES[0] + 3)


def test_other_axes_of_one_file_are_turned_to_those_of_the_first(
    write_nifti: Write, caplog: pytest.LogCaptureFixture
) -> None:
    turned = np.diag([1.5, 0.75, 4, 1])[:, [1, 2, 0, 3]]
    turned[:, 1], turned[2, 3] = -turned[:, 1], 4 * (SHAPE[2] - 1)
    paths = [write_nifti("a.nii", VOLUMES[0]), write_nifti("b.nii", VOLUMES[1].transpose(1, 2, 0)[:, ::-1], turned)]
    with caplog.at_level(logging.WARNING):
        image = load(paths, ["T1", "T2"])
    np.testing.assert_array_equal(image.numpy(), VOLUMES[:2])
    assert "b.nii" not in caplog.text


@pytest.mark.parametrize(("shift", "same"), [(0.74, True), (0.76, False)])
def test_modalities_half_a_voxel_apart_are_on_one_grid(
    write_nifti: Write, caplog: pytest.LogCaptureFixture, shift: float, same: bool
) -> None:
    shifted = np.diag([1.5, 0.75, 4, 1])
    shifted[0, 3] = shift
    with caplog.at_level(logging.WARNING):
        image = load([write_nifti("a.nii", VOLUMES[0]), write_nifti("b.nii", VOLUMES[1], shifted)], ["T1", "T2"])
    assert np.array_equal(image.numpy()[1], VOLUMES[1]) == same
    expected = "b.nii: another grid than a.nii; resampled onto it (it covers 94 % of it): a corner lies 0.76 mm (0.507"
    assert (expected in caplog.text) != same


def test_outside_of_a_smaller_field_of_view_is_its_lowest_value(write_nifti: Write) -> None:
    shifted = np.diag([1.5, 0.75, 4, 1])
    shifted[0, 3] = 4.5
    image = load([write_nifti("a.nii", VOLUMES[0]), write_nifti("b.nii", VOLUMES[1] - 500, shifted)], ["T1", "T2"])
    np.testing.assert_allclose(image.numpy()[1, 3:], VOLUMES[1][:-3] - 500.0, atol=1e-3)
    assert (image.numpy()[1, :2] == (VOLUMES[1] - 500).min()).all()


def test_nan_becomes_the_lowest_value_with_a_warning(write_nifti: Write, caplog: pytest.LogCaptureFixture) -> None:
    volume = VOLUMES[0].astype(np.float32) + 5
    volume[0, 0, :2] = np.nan, np.inf
    with caplog.at_level(logging.WARNING):
        image = load(write_nifti("a.nii", volume), ["CT"])
    assert (image.numpy()[0, 0, 0, :2] == np.nanmin(volume)).all()
    assert "a.nii: 2 voxels are NaN or infinite" in caplog.text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_label_that_is_not_finite_is_refused(write_nifti: Write, value: float) -> None:
    label = np.zeros(SHAPE, np.float32)
    label[2, 3, :2] = value
    path = write_nifti("a.nii", label)
    message = r"a.nii: 2 of 210 voxels are NaN or infinite, expected label values; set background voxels to 0"
    with pytest.raises(InputError, match=message):
        LoadImage(reader=VolumeReader(["label"], allow_constant=True))(path)


@pytest.mark.parametrize("step", [1e-3, 1.0, 50.0])
def test_voxels_of_any_size_place_a_volume(step: float) -> None:
    check_grid(Path("a.nii"), SHAPE, np.diag([step, 2 * step, 3 * step, 1]))
    flat = step * np.array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 2.0001, 0], [0, 0, 0, 1 / step]])
    with pytest.raises(InputError, match=r"a.nii: the affine .* is not finite and invertible; correct the header"):
        check_grid(Path("a.nii"), SHAPE, flat)


def _damaged(write: Write) -> Path:
    path = write("whole.nii.gz", VOLUMES[0])
    broken = path.with_name("broken.nii.gz")
    broken.write_bytes(path.read_bytes()[:200])
    return broken


def _short(write: Write) -> Path:
    path = write("whole.nii", VOLUMES[0])
    broken = path.with_name("broken.nii.gz")
    broken.write_bytes(gzip.compress(path.read_bytes()[:400]))
    return broken


def _text(write: Write) -> Path:
    path = write("a.nii", VOLUMES[0])
    path.write_text("no image")
    return path


def _rgb(write: Write) -> Path:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return write("a.nii", colour)


def _flat(write: Write) -> Path:
    path = write("a.nii", VOLUMES[0])
    content = bytearray(path.read_bytes())
    content[296:312] = bytes(16)  # srow_y of the sform
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "names", "message"),
    [
        (_damaged, ["CT"], "broken.nii.gz: not a complete NIfTI file"),
        (_short, ["CT"], "broken.nii.gz: not a complete NIfTI file"),
        (_text, ["CT"], "a.nii: not a NIfTI file, found b'no image'"),
        (_rgb, ["CT"], r"a.nii: colour \(RGB\) voxels"),
        (lambda w: w("a.nii", VOLUMES[0].astype(np.complex64)), ["CT"], "a.nii: complex voxels"),
        (lambda w: w("a.nii", VOLUMES[0][..., 0]), ["CT"], r"a.nii: shape \(7, 6\), expected a volume"),
        (lambda w: w("a.nii", VOLUMES[0][..., :1]), ["CT"], r"a.nii: shape \(7, 6, 1\), expected a volume"),
        (lambda w: w("a.nii", np.full(SHAPE, 3.0)), ["CT"], "a.nii: every voxel of CT is 3"),
        (lambda w: w("a.nii", np.full(SHAPE, np.nan)), ["CT"], "a.nii: all voxels are NaN or infinite"),
        (
            lambda w: w("a.nii", VOLUMES[0]),
            NAMES,
            r"a.nii: 1 channel, expected 3 \(T1, T2, CET1\); give one file for each",
        ),
        (lambda w: w("a.nii", np.moveaxis(VOLUMES, 0, 3)), ["CT"], r"a.nii: 3 channels, expected 1"),
        (
            lambda w: three_files(w)[:2],
            NAMES,
            r"2 files \(P_T1.nii.gz, P_T2.nii.gz\), expected one for each of T1, T2, CET1",
        ),
        (
            lambda w: [w("a.nii", np.moveaxis(VOLUMES, 0, 3)), w("b.nii", VOLUMES[0])],
            ["A", "B"],
            "a.nii: 3 channels, expected one",
        ),
        (_flat, ["CT"], "a.nii: the affine .* not finite and invertible"),
        (lambda w: w("a.nii", VOLUMES[0]).with_name("b.nii"), ["CT"], "b.nii: no such file"),
        (
            lambda w: w("a.nii", VOLUMES[0]).rename(w("b.nii", VOLUMES[0]).with_name("c.png")),
            ["CT"],
            "c.png: unknown format",
        ),
    ],
)
def test_what_cannot_be_read_is_said(write_nifti: Write, make: Callable, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(make(write_nifti), names)


def test_files_of_different_patients_are_refused(write_nifti: Write) -> None:
    far = np.diag([1.5, 0.75, 4, 1])
    far[:3, 3] = 1000
    paths = [write_nifti("a.nii", VOLUMES[0]), write_nifti("b.nii", VOLUMES[1], far)]
    with pytest.raises(InputError, match=r"b.nii: does not overlap .*a.nii"):
        load(paths, ["T1", "T2"])


def test_sform_and_qform_that_disagree_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(VOLUMES[0], np.diag([1.5, 0.75, 4, 1]))
    image.set_qform(np.diag([2.0, 2, 2, 1]), code=1)
    image.set_sform(np.diag([1.5, 0.75, 4, 1]), code=1)
    nib.save(image, tmp_path / "a.nii")
    with caplog.at_level(logging.WARNING):
        affine = load(tmp_path / "a.nii", ["CT"]).affine
    assert "a.nii: sform and qform differ by up to" in caplog.text
    np.testing.assert_array_equal(affine, np.diag([1.5, 0.75, 4, 1]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with
def test_metaimage_is_the_same_volume(write_nifti: Write, tmp_path: Path) -> None:
    itk = pytest.importorskip("itk", reason="MetaImage needs itk")
    nifti = write_nifti("a.nii", VOLUMES[0])
    itk.imwrite(itk.imread(str(nifti)), str(tmp_path / "a.mha"))
    one, other = load(nifti, ["CT"]), load(tmp_path / "a.mha", ["CT"])
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-6)


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {"filename_or_obj": "case 1.5.nii.gz", "original_affine": np.eye(4), "spatial_shape": np.array(SHAPE)}
    mask = MetaTensor(np.ones((1, *SHAPE), np.float32), affine=np.eye(4), meta=meta)
    save = SaveImage(
        tmp_path, "seg", ".nii.gz", writer=AtomicNibabelWriter, separate_folder=False, output_dtype=np.uint8
    )
    save(mask)
    assert [p.name for p in tmp_path.iterdir()] == ["case 1.5_seg.nii.gz"]
    assert nib.load(tmp_path / "case 1.5_seg.nii.gz").get_data_dtype() == np.uint8

    write_bytes = Path.write_bytes

    def interrupted(path: Path, content: bytes) -> None:
        write_bytes(path, content[:9])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    mask.meta["filename_or_obj"] = "other.nii.gz"
    with pytest.raises(RuntimeError, match="disk full"):
        save(mask)
    assert [p.name for p in tmp_path.iterdir()] == ["case 1.5_seg.nii.gz"]
