from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.label_table import label_table
from common.errors import InputError
from common.figures import draw_outlines
from common.reporting import write_result

matplotlib_image = pytest.importorskip("matplotlib.image")
matplotlib_colors = pytest.importorskip("matplotlib.colors")

SHAPE = (12, 16, 6)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.2, SHAPE).astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:7, 4:9, 1:4] = 1
    return mask


def pixels(path: Path) -> np.ndarray:
    return matplotlib_image.imread(path)[..., :3]


def coloured(picture: np.ndarray) -> np.ndarray:
    return picture.max(-1) - picture.min(-1) > 0.3


def test_picture_is_a_png(write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path) -> None:
    image_file, mask_file = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", mask)
    out = draw_outlines([image_file], mask_file, tmp_path / "new" / "picture.png", truth=mask_file)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert coloured(pixels(out)).any()


def test_picture_has_a_row_per_channel_and_a_column_per_slice(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path
) -> None:
    stacked = write_nifti("stacked.nii.gz", np.stack([image, image + 1], 3))
    mask_file = write_nifti("mask.nii.gz", mask)
    sizes = [
        pixels(draw_outlines([stacked], mask_file, tmp_path / "picture.png", columns=columns)).shape[:2]
        for columns in (1, 2, 9)
    ]
    single = pixels(draw_outlines([write_nifti("one.nii.gz", image)], mask_file, tmp_path / "one.png", columns=1))
    assert sizes[0][0] > 1.7 * single.shape[0]
    assert [round(width / sizes[0][1]) for _, width in sizes] == [1, 2, 3]  # the mask is in three slices


def test_empty_mask_has_no_outline(write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path) -> None:
    files = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", 0 * mask)
    out = draw_outlines(files[:1], files[1], tmp_path / "picture.png", truth=files[1])
    assert not coloured(pixels(out)).any()


@pytest.mark.parametrize("turned", [False, True])
def test_right_side_of_the_patient_is_on_the_left(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path, turned: bool
) -> None:
    affine = np.diag([1.5, 0.75, 4.0, 1.0])
    image[8:] += 1  # where x is large, which is right in RAS
    if turned:
        image, mask, affine = image[::-1].copy(), mask[::-1].copy(), np.diag([-1.5, 0.75, 4.0, 1.0])
    files = write_nifti("image.nii.gz", image, affine), write_nifti("mask.nii.gz", 0 * mask, affine)
    picture = pixels(draw_outlines(files[:1], files[1], tmp_path / "picture.png"))
    rows = picture[picture.shape[0] // 2 - 10 : picture.shape[0] // 2 + 10].mean((0, 2))
    inside = rows[len(rows) // 4 : 3 * len(rows) // 4]  # without the margins and their labels
    third = len(inside) // 3
    assert inside[:third].mean() > 0.7 > 0.4 > inside[-third:].mean()


def test_another_grid_is_refused(write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path) -> None:
    image_file, mask_file = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", mask)
    small = write_nifti("small.nii.gz", image[:, :, 1:])
    out = tmp_path / "picture.png"
    with pytest.raises(
        InputError,
        match=r"small\.nii\.gz: its grid differs .*mask\.nii\.gz: shape \[12, 16, 5\], expected \[12, 16, 6\]",
    ):
        draw_outlines([image_file, small], mask_file, out)
    with pytest.raises(InputError, match=r"small\.nii\.gz: its grid differs"):
        draw_outlines([image_file], mask_file, out, truth=small)
    affine = np.diag([1.5, 0.75, 4.0, 1.0])
    affine[1, 3] = 0.5
    shifted = write_nifti("shifted.nii.gz", mask, affine)
    with pytest.raises(InputError, match=r"shifted.nii.gz: its grid differs .*: a corner lies 0.5 mm \(0.667 voxels\)"):
        draw_outlines([image_file], mask_file, out, truth=shifted)
    with pytest.raises(InputError, match=r"none\.nii\.gz: no such file"):
        draw_outlines([image_file], tmp_path / "none.nii.gz", out)
    assert not out.exists()


def test_each_label_has_its_colour(write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path) -> None:
    labels = np.where(mask, np.where(np.indices(SHAPE)[1] < 6, 2, 4), 0).astype(np.uint8)
    drawn = draw_outlines(
        [write_nifti("image.nii.gz", image)], write_nifti("labels.nii.gz", labels), tmp_path / "picture.png"
    )
    picture = pixels(drawn)
    for colour in ("tab:red", "tab:cyan"):
        near = np.abs(picture - matplotlib_colors.to_rgb(colour)).max(-1) < 0.1
        assert near.any(), colour


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record title and caption of the pictures."""
    figure = pytest.importorskip("matplotlib.figure")
    found: list[str] = []
    for name in ("suptitle", "supxlabel"):
        draw = getattr(figure.Figure, name)
        monkeypatch.setattr(
            figure.Figure, name, lambda self, text, d=draw, **options: found.append(text) or d(self, text, **options)
        )
    return found


def test_legend_has_the_names_in_the_mask(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path, texts: list[str]
) -> None:
    labels = np.where(mask, np.where(np.indices(SHAPE)[1] < 6, 2, 4), 0).astype(np.uint8)
    for name, values, table in (("two", labels, {"core": 2, "$x$ & <y>": 4}), ("one", mask, {"liver": 1})):
        (tmp_path / name).mkdir()
        drawn = nib.Nifti1Image(values, np.diag([1.5, 0.75, 4.0, 1.0]))
        drawn.header.extensions.append(label_table(table))
        nib.save(drawn, tmp_path / name / "a_seg.nii.gz")
        draw_outlines(
            [write_nifti("image.nii.gz", image)],
            tmp_path / name / "a_seg.nii.gz",
            tmp_path / "picture.png",
            truth=write_nifti("truth.nii.gz", values),
        )
    assert texts == [
        r"a, Dice core 1.000, \$x\$ & <y> 1.000",
        r"core red, \$x\$ & <y> cyan; prediction thin, ground truth wide",
        "a, Dice liver 1.000",
        "liver: prediction blue, thin; ground truth red, wide",
    ]


def test_legend_has_the_names_of_the_data_set(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path, texts: list[str]
) -> None:
    labels = np.where(mask, np.where(np.indices(SHAPE)[1] < 6, 1, 2), 0).astype(np.uint8)
    image_file, truth = write_nifti("data/imagesTr/a.nii.gz", image), write_nifti("data/labelsTr/a.nii.gz", labels)
    prediction = write_nifti("masks/a_seg.nii.gz", labels)
    draw_outlines([image_file], prediction, tmp_path / "picture.png", truth=truth)
    (tmp_path / "data" / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "anterior": 1}}))
    draw_outlines([image_file], prediction, tmp_path / "picture.png", truth=truth)
    draw_outlines([image_file], prediction, tmp_path / "picture.png")
    assert texts == [
        "a, Dice 1.000, 1.000",
        "label 1 red, label 2 cyan; prediction thin, ground truth wide",
        "a, Dice anterior 1.000, 1.000",
        "anterior red, label 2 cyan; prediction thin, ground truth wide",
        "a",
        "anterior red, label 2 cyan",
    ]


def test_heat_map_has_a_row_of_its_own(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path
) -> None:
    """Check that the row is warm where the heat is 1, and grey where it is 0."""
    heat = np.zeros(SHAPE, np.float32)
    heat[:, 8:, 1:4] = 1
    files = [write_nifti(f"{name}.nii.gz", a) for name, a in (("image", image), ("none", 0 * mask), ("heat", heat))]
    plain = pixels(draw_outlines(files[:1], files[1], tmp_path / "plain.png"))
    warm = pixels(draw_outlines(files[:1], files[1], tmp_path / "warm.png", columns=1, heat=files[2]))
    assert warm.shape[0] > 1.7 * plain.shape[0]
    found = coloured(warm)
    assert not coloured(plain).any()
    assert not found[: warm.shape[0] // 2 - 20].any()  # the row of the image itself
    red = found & (warm.argmax(-1) == 0)
    assert red.any() and (red == found).all()
    lines = np.flatnonzero(found.any(1))
    second = warm.shape[0] / 2
    assert lines[0] > second - 30 and lines[-1] < second * 1.6  # the upper half of it: y grows upwards


def test_empty_mask_shows_the_slices_with_heat(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path
) -> None:
    heat = np.zeros(SHAPE, np.float32)
    heat[:, :, 4] = 0.9
    heat[:, :, 5] = 0.5
    heat[:, :, 0] = 0.4
    files = [write_nifti(f"{name}.nii.gz", a) for name, a in (("image", image), ("none", 0 * mask), ("heat", heat))]
    widths = [
        pixels(draw_outlines(files[:1], files[1], tmp_path / "picture.png", **options)).shape[1]
        for options in ({}, {"heat": files[2]})
    ]
    assert round(widths[1] / widths[0]) == 2


def test_caption_has_the_class(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path, texts: list[str]
) -> None:
    result = tmp_path / "P1_class.json"
    write_result("P1", {"class": "CAP", "probabilities": {"COVID-19": 0.234, "CAP": 0.766}}, result)
    files = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", mask)
    draw_outlines(files[:1], files[1], tmp_path / "picture.png", result=result)
    assert texts == ["mask", "prediction blue\nclass CAP (COVID-19 0.23, CAP 0.77)"]


def test_heat_on_another_grid_is_refused(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path
) -> None:
    files = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", mask)
    for heat in (image[:, :, 1:], np.stack([image, image], 3)):
        with pytest.raises(
            InputError, match=r"heat\.nii\.gz: its grid differs .*mask\.nii\.gz: shape .*, expected \[12, 16, 6\]"
        ):
            draw_outlines(files[:1], files[1], tmp_path / "x.png", heat=write_nifti("heat.nii.gz", heat))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda mask: mask * 0.5, "values from 0 to 0.5"),
        (lambda mask: np.where(mask, -1.0, 0.0), "values from -1 to 0"),
        (lambda mask: np.stack([mask, mask], 3), "2 channels"),
        (lambda mask: np.arange(mask.size, dtype=np.float32).reshape(SHAPE), "1152 different values"),
    ],
)
def test_volume_that_is_no_label_map_is_refused(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path, change: Callable, found: str
) -> None:
    image_file, mask_file = write_nifti("image.nii.gz", image), write_nifti("mask.nii.gz", mask)
    other = write_nifti("other.nii.gz", change(mask))
    for prediction, truth in ((other, None), (mask_file, other)):
        with pytest.raises(InputError, match=rf"other\.nii\.gz: {found}, expected a label map, which has one channel"):
            draw_outlines([image_file], prediction, tmp_path / "picture.png", truth=truth)
    assert not (tmp_path / "picture.png").exists()


def test_heat_beyond_0_to_1_is_refused(
    write_nifti: Callable, image: np.ndarray, mask: np.ndarray, tmp_path: Path
) -> None:
    mask_file, heat = write_nifti("mask.nii.gz", mask), write_nifti("heat.nii.gz", mask * 30)
    with pytest.raises(InputError, match=r"heat\.nii\.gz: values from 0 to 30, expected a map of 0 to 1"):
        draw_outlines([write_nifti("image.nii.gz", image)], mask_file, tmp_path / "picture.png", heat=heat)


def test_picture_without_an_image_is_refused(write_nifti: Callable, mask: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image; give the scan"):
        draw_outlines([], write_nifti("mask.nii.gz", mask), tmp_path / "picture.png")
