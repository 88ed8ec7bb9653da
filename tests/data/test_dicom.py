"""Read series that are written byte by byte, so that no writer shares the reader's library."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor
from monai.transforms import EnsureChannelFirst, LoadImage, SaveImage

from common.data import AtomicNibabelWriter, VolumeReader
from common.data.dicom import is_series
from common.data.dicom_trees import is_dicom
from common.data.volumes import read_volume
from common.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the wrappers that itk is made with

CT = "1.2.840.10008.5.1.4.1.1.2"
STORED = np.random.default_rng(0).integers(0, 4096, (4, 5, 3)).astype(np.uint16)  # slice, row, column
AXIAL = (1.0, 0, 0, 0, 1, 0)


@pytest.fixture
def itk_() -> None:
    pytest.importorskip("itk", reason="DICOM needs itk")


def element(group: int, number: int, kind: str, value: str | bytes | int) -> bytes:
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode()
    value += (b"\0" if kind in ("UI", "OW") else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "OW") else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind.encode() + length + value


def write_slice(
    path: Path,
    pixels: np.ndarray,
    position: Sequence[float] | np.ndarray | None,
    orientation: Sequence[float] | np.ndarray = AXIAL,
    spacing: tuple[float, float] = (0.5, 0.8),
    slope: float = 1,
    intercept: float = -1024,
    series: str = "1.2.3",
    description: str = "thorax",
    frames: int = 1,
) -> Path:
    """Write an image ``(row, column)``, or ``(row, column, 3)`` in colour, as DICOM in explicit little-endian form."""
    colour = pixels.ndim == 3
    name = "1.2.8"
    meta = b"".join(
        (
            element(2, 1, "OB", b"\0\1"),
            element(2, 2, "UI", CT),
            element(2, 3, "UI", name),
            element(2, 16, "UI", "1.2.840.10008.1.2.1"),
            element(2, 18, "UI", "1.2.9"),
        )
    )
    content = [
        element(0x8, 0x16, "UI", CT),
        element(0x8, 0x18, "UI", name),
        element(0x8, 0x60, "CS", "CT"),
        element(0x8, 0x103E, "LO", description),
        element(0x18, 0x50, "DS", "3"),  # SliceThickness, which is not the step
        element(0x20, 0xE, "UI", series),
    ]
    if position is not None:
        content += [element(0x20, 0x32, "DS", "\\".join(f"{v:.10g}" for v in position))]
        content += [element(0x20, 0x37, "DS", "\\".join(f"{v:.10g}" for v in orientation))]
    content += [
        element(0x28, 0x2, "US", 3 if colour else 1),
        element(0x28, 0x4, "CS", "RGB" if colour else "MONOCHROME2"),
        *([element(0x28, 0x6, "US", 0)] if colour else []),
        *([element(0x28, 0x8, "IS", str(frames))] if frames > 1 else []),
        element(0x28, 0x10, "US", pixels.shape[0] // frames),
        element(0x28, 0x11, "US", pixels.shape[1]),
        element(0x28, 0x30, "DS", "\\".join(f"{v:.10g}" for v in spacing)),
        element(0x28, 0x100, "US", 8 * pixels.itemsize),
        element(0x28, 0x101, "US", 8 * pixels.itemsize),
        element(0x28, 0x102, "US", 8 * pixels.itemsize - 1),
        element(0x28, 0x103, "US", 0),
        *([] if colour else [element(0x28, 0x1052, "DS", f"{intercept:g}")]),
        *([] if colour else [element(0x28, 0x1053, "DS", f"{slope:g}")]),
        element(0x7FE0, 0x10, "OW", pixels.tobytes()),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        bytes(128) + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + b"".join(content)
    )
    return path


def write_series(folder: Path, heights: tuple[float, ...] = (10, 12, 14, 16), **options: object) -> Path:
    """Write axial slices with names in another order than their positions."""
    for i, height in enumerate(heights):
        write_slice(folder / f"IM{7 * (i + 2) % 5}_{i}", STORED[i], (-30, 40, height), **options)  # type: ignore[arg-type]
    return folder


@pytest.mark.usefixtures("itk_")
def test_axial_series(tmp_path: Path) -> None:
    image = EnsureChannelFirst()(LoadImage(reader=VolumeReader(["CT"]))(write_series(tmp_path / "P1")))
    assert image.shape == (1, 3, 5, 4)
    np.testing.assert_array_equal(image[0].numpy(), STORED.astype(np.float32).transpose(2, 1, 0) - 1024)
    # x of DICOM counts to the left, y to the back; columns are 0.8 mm apart, rows 0.5 mm, slices 2 mm
    np.testing.assert_allclose(
        image.affine, [[-0.8, 0, 0, 30], [0, -0.5, 0, -40], [0, 0, 2, 10], [0, 0, 0, 1]], atol=1e-9
    )


@pytest.mark.usefixtures("itk_")
def test_oblique_series_lies_where_its_headers_say(tmp_path: Path) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    row, column, normal = turn[0], turn[1], np.cross(turn[0], turn[1])
    corner = np.array([5.0, -60, 7])
    for i in range(4):
        write_slice(tmp_path / f"{9 - i}.dcm", STORED[i], corner + 2.5 * i * normal, (*row, *column))
    array, affine = read_volume(tmp_path)
    for i, j, k in np.ndindex(array.shape):
        assert array[i, j, k] == STORED[k, j, i] - 1024.0
        left_back_up = corner + 0.8 * i * row + 0.5 * j * column + 2.5 * k * normal
        np.testing.assert_allclose((affine @ [i, j, k, 1])[:3], left_back_up * [-1, -1, 1], atol=1e-6)


@pytest.mark.usefixtures("itk_")
def test_the_geometry_is_that_of_itk(tmp_path: Path) -> None:
    import itk
    from monai.data import ITKReader

    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    normal = np.cross(turn[0], turn[1])
    paths = [write_slice(tmp_path / str(i), STORED[i], 2.5 * i * normal, turn[:2].ravel()) for i in range(4)]
    array, meta = ITKReader().get_data(itk.imread([str(p) for p in paths]))
    found, affine = read_volume(tmp_path)
    np.testing.assert_array_equal(found, array)
    np.testing.assert_allclose(affine, meta["affine"], atol=1e-6)


@pytest.mark.usefixtures("itk_")
def test_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    scales = [(1, -1024), (0.5, 3), (0.25, 0), (2, 1.5)]
    for i, (slope, intercept) in enumerate(scales):
        write_slice(tmp_path / f"{i}.dcm", STORED[i], (0, 0, i), slope=slope, intercept=intercept)
    array, _ = read_volume(tmp_path)
    for i, (slope, intercept) in enumerate(scales):
        np.testing.assert_allclose(array[:, :, i].T, slope * STORED[i].astype(float) + intercept, rtol=1e-6)


@pytest.mark.usefixtures("itk_")
def test_positions_rounded_to_a_tenth_are_even(tmp_path: Path) -> None:
    """Of 0.625 mm."""
    for i, height in enumerate([0, 0.6, 1.2, 1.9, 2.5, 3.1, 3.8, 4.4]):
        write_slice(tmp_path / str(i), STORED[i % 4], (0, 0, height))
    np.testing.assert_allclose(read_volume(tmp_path)[1][2], [0, 0, 4.4 / 7, 0])


@pytest.mark.usefixtures("itk_")
def test_a_mask_is_written_on_the_grid_of_its_series(tmp_path: Path) -> None:
    image = EnsureChannelFirst()(LoadImage(reader=VolumeReader(["CT"]))(write_series(tmp_path / "P1")))
    assert isinstance(image, MetaTensor)
    mask = MetaTensor((image > 900).float(), meta=image.meta)
    options = {"writer": AtomicNibabelWriter, "separate_folder": False, "output_dtype": np.uint8, "print_log": False}
    SaveImage(tmp_path / "out", "seg", ".nii.gz", **options)(mask)
    written = nib.load(tmp_path / "out" / "P1_seg.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), STORED.transpose(2, 1, 0) > 900 + 1024)
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-6)


@pytest.mark.usefixtures("itk_")
def test_dicom_and_nifti_modalities_make_one_case(tmp_path: Path) -> None:
    series = write_series(tmp_path / "P_T1")
    array, affine = read_volume(series)
    nib.save(
        nib.Nifti1Image(array[::-1] + 5, affine @ [[-1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        tmp_path / "T2.nii",
    )
    image = LoadImage(reader=VolumeReader(["T1", "T2"]))([series, tmp_path / "T2.nii"])
    np.testing.assert_allclose(image[1], array + 5, atol=1e-2)


def test_dicom_is_found_by_suffix_or_content(tmp_path: Path) -> None:
    series = write_series(tmp_path / "P1")
    assert all(is_dicom(p) for p in series.iterdir())
    (tmp_path / "a.DCM").touch()
    (tmp_path / "notes.txt").write_text("DICM")
    (tmp_path / ".hidden.dcm").touch()
    (next(series.iterdir())).rename(tmp_path / "DICOMDIR")
    assert [p.name for p in sorted(tmp_path.iterdir()) if is_dicom(p)] == ["a.DCM"]
    assert is_series(series)
    (tmp_path / "a.DCM").unlink()
    assert not is_series(tmp_path)  # the slices are below
    assert not is_series(series / "IM4_0")


def _two_series(folder: Path) -> None:
    write_series(folder)
    write_slice(folder / "x.dcm", STORED[0], (0, 0, 0), series="1.2.4", description="scout")


def _localizer(folder: Path) -> None:
    write_series(folder)
    write_slice(folder / "z", STORED[0], (0, 0, 0), orientation=(0, 1, 0, 0, 0, -1))


def _tilted(folder: Path) -> None:
    for i in range(4):
        write_slice(folder / str(i), STORED[i], (0, 0.6 * i, 2 * i))


def _drifting(folder: Path) -> None:
    for i in range(41):
        write_slice(folder / f"{i:02d}", STORED[i % 4], (0, 0, 2 * i + max(0, i - 20) * 0.1))


def _shorter(folder: Path) -> None:
    path = sorted(write_series(folder).iterdir())[-1]
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.usefixtures("itk_")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.mkdir(), "P1: no DICOM files in this folder"),
        (
            _two_series,
            r"P1: 2 DICOM series \(CT 'thorax', 4 images such as IM\w+, 1.2.3; CT 'scout', 1 image such as x.dcm, "
            r"1.2.4\); put each into its own folder",
        ),
        (lambda f: write_series(f, (1,)), r"P1: a single DICOM image \(IM4_0\), expected a series"),
        (
            lambda f: write_series(f, (10, 12, 16, 18)),
            r"P1: unequal steps between its 4 slices, mostly 2 mm but 4 mm from -30, 40, 12 to -30, 40, 16; ",
        ),
        (lambda f: write_series(f, (10, 12, 16)), r"unequal steps .* 4 mm from -30, 40, 12 to -30, 40, 16"),
        (lambda f: write_series(f, (10, 14, 16, 20)), r"unequal steps .* 2 mm from -30, 40, 14 to -30, 40, 16"),
        (_drifting, "P1: unequal steps between its 41 slices"),
        (
            lambda f: write_series(f, (10, 12, 12, 14)),
            r"P1: 1 of its 4 images at the position of another, such as IM\w+ and IM\w+ at -30, 40, 12; remove",
        ),
        (
            _localizer,
            r"P1: IM\w+ and z differ in direction \(1, 0, 0, 0, 1, 0 and 0, 1, 0, 0, 0, -1\).*localizer",
        ),
        (
            lambda f: write_slice(write_series(f) / "z", STORED[0, :4], (0, 0, 18)),
            r"P1: IM\w+ and z differ in size \(3, 5 and 3, 4\)",
        ),
        (
            lambda f: write_slice(write_series(f) / "z", STORED[0], (0, 0, 18), spacing=(0.5, 0.9)),
            r"P1: IM\w+ and z differ in pixel spacing \(0.5, 0.8 and 0.5, 0.9\)",
        ),
        (_tilted, "P1: its slices are shifted against each other by up to 1.8 mm, as with a tilted gantry"),
        (
            lambda f: write_slice(write_series(f) / "z", np.zeros((5, 3, 3), np.uint8), (0, 0, 18)),
            "P1: z is a colour image",
        ),
        (
            lambda f: write_slice(write_series(f) / "z", STORED[:2].reshape(10, 3), (0, 0, 18), frames=2),
            "P1: z has 2 frames, expected one slice in each file",
        ),
        (lambda f: write_slice(f / "z", STORED[:2].reshape(10, 3), (0, 0, 18), frames=2), "P1: z has 2 frames"),
        (
            lambda f: write_slice(write_series(f) / "z", STORED[0], None),
            r"P1: z has no valid slice position .*secondary capture",
        ),
        (
            lambda f: write_series(f, orientation=(1, 0, 0, 1, 0, 0)),
            r"P1: ImageOrientationPatient 1, 0, 0, 1, 0, 0 is not a pair of unit vectors",
        ),
        (_shorter, r"P1/IM4_0: truncated within its pixels"),
        (lambda f: (write_series(f) / "z.dcm").touch(), r"P1/z.dcm: not a DICOM image, or damaged"),
    ],
)
def test_what_makes_no_volume_is_said(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "P1")
    with pytest.raises(InputError, match=message):
        read_volume(tmp_path / "P1")


def test_reading_dicom_without_itk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.data.dicom.has_itk", False)
    with pytest.raises(InputError, match=r"P1: reading DICOM needs the packages itk and pydicom"):
        read_volume(write_series(tmp_path / "P1"))


def test_a_single_file_of_a_series_is_refused(tmp_path: Path) -> None:
    path = next(write_series(tmp_path / "P1").iterdir())
    with pytest.raises(InputError, match=rf"{path.name}: one file of a DICOM series; give the folder .*P1$"):
        read_volume(path)
