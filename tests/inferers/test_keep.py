"""Test windows with a kept centre, and empty windows in images with negative values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.errors import InputError
from common.inferers import WindowInferer

FLOAT32: dict[str, Any] = {"precision": "float32"}


class Recorder:
    """Return the input, and record the windows."""

    def __init__(self) -> None:
        self.windows: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.windows += list(x)
        return x


def crops(image: Tensor, roi: tuple[int, ...], keep: tuple[int, ...]) -> list[Tensor]:
    """Return the windows of one case by definition, for sizes that are multiples of ``keep``."""
    before = [(r - k) // 2 for r, k in zip(roi, keep)]
    padded = torch.zeros(image.shape[1], *(n + 2 * r for n, r in zip(image.shape[2:], roi)))
    x, y, z = (slice(r, r + n) for n, r in zip(image.shape[2:], roi))
    padded[:, x, y, z] = image[0]
    windows = []
    for i in range(0, image.shape[2], keep[0]):
        for j in range(0, image.shape[3], keep[1]):
            for k in range(0, image.shape[4], keep[2]):
                a, b, c = (slice(s + r - d, s + 2 * r - d) for s, r, d in zip((i, j, k), roi, before))
                windows.append(padded[:, a, b, c])
    return windows


@pytest.mark.slow
def test_4464_windows_cover_each_voxel_of_brats_once() -> None:
    image = torch.arange(1, 1 + 240 * 240 * 155).remainder(8191).reshape(1, 1, 240, 240, 155).float()
    counts = torch.zeros(3, dtype=torch.long)

    def network(x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, 32, 32, 16)
        counts[0] += len(x)
        counts[1] += x.numel()
        marked = torch.full_like(x, -1)
        marked[..., 6:26, 6:26, 5:10] = x[..., 6:26, 6:26, 5:10]
        return marked

    found = WindowInferer((32, 32, 16), 48, keep=(20, 20, 5), **FLOAT32)(image, network)
    assert counts.tolist() == [4464, 4464 * 16384, 0]
    assert torch.equal(found, image)  # no margin is used, no voxel counts twice


@pytest.mark.parametrize(
    ("roi", "keep"),
    [((6, 8, 7), (4, 3, 2)), ((6, 8, 7), (2, 1, 6)), ((3, 3, 3), (1, 1, 1)), ((4, 3, 6), (4, 3, 6))],
)
def test_a_window_is_a_crop_of_the_padded_volume(roi: tuple[int, ...], keep: tuple[int, ...]) -> None:
    image, recorder = torch.randn(1, 2, 12, 9, 6), Recorder()
    found = WindowInferer(roi, 4, keep=keep, **FLOAT32)(image, recorder)
    expected = crops(image, roi, keep)
    assert len(recorder.windows) == len(expected) == 12 * 9 * 6 // (keep[0] * keep[1] * keep[2])
    assert all(torch.equal(a, b) for a, b in zip(recorder.windows, expected))
    assert torch.equal(found, image)


def test_only_the_centre_counts_after_the_smaller_margin() -> None:
    def places(x: Tensor) -> Tensor:
        lines = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in x.shape[2:]), indexing="ij")
        return torch.stack(lines).expand(len(x), -1, -1, -1, -1)

    found = WindowInferer((32, 32, 16), keep=(20, 20, 5), **FLOAT32)(torch.zeros(1, 1, 40, 20, 10), places)
    assert found[0, 0, :, 0, 0].tolist() == list(range(6, 26)) * 2
    assert found[0, 1, 0, :, 0].tolist() == list(range(6, 26))
    assert found[0, 2, 0, 0, :].tolist() == list(range(5, 10)) * 2


@pytest.mark.parametrize("shape", [(11, 9, 7), (1, 2, 3), (4, 3, 2), (13, 4, 6)])
@pytest.mark.parametrize("cases", [1, 2])
def test_any_size_is_covered_once(shape: tuple[int, ...], cases: int) -> None:
    image, recorder = torch.randn(cases, 2, *shape), Recorder()
    found = WindowInferer((8, 5, 4), 3, keep=(4, 3, 2), **FLOAT32)(image, recorder)
    assert torch.equal(found, image)
    x, y, z = (-(-n // k) for n, k in zip(shape, (4, 3, 2)))
    assert len(recorder.windows) == cases * x * y * z
    assert all(window.shape == (2, 8, 5, 4) for window in recorder.windows)


def test_overlap_and_mode_have_no_effect() -> None:
    image, network = torch.randn(1, 2, 12, 9, 6), torch.nn.Conv3d(2, 3, 3, padding=1).requires_grad_(False)
    plain = WindowInferer((6, 7, 4), 2, 0.0, keep=(4, 3, 2), **FLOAT32)(image, network)
    other = WindowInferer((6, 7, 4), 2, 0.75, "gaussian", keep=(4, 3, 2), **FLOAT32)(image, network)
    assert torch.equal(plain, other)
    assert not torch.allclose(plain, WindowInferer((6, 7, 4), 2, 0.0, **FLOAT32)(image, network), atol=1e-3)


def test_minus_1_keeps_a_whole_axis() -> None:
    image, recorder = torch.randn(1, 2, 12, 9, 6), Recorder()
    found = WindowInferer((-1, 7, 4), keep=(-1, 3, -1), **FLOAT32)(image, recorder)
    assert torch.equal(found, image)
    assert {tuple(window.shape) for window in recorder.windows} == {(2, 12, 7, 4)}
    assert len(recorder.windows) == 1 * 3 * 2


def test_a_metatensor_gives_a_metatensor() -> None:
    affine = torch.diag(torch.tensor([2.0, 1, 3, 1], dtype=torch.float64))
    image = MetaTensor(torch.randn(1, 2, 11, 9, 7), affine=affine)
    found = WindowInferer((6, 7, 4), keep=(4, 3, 2), **FLOAT32)(image, Recorder())
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine)
    assert torch.equal(found.as_tensor(), image.as_tensor())


def test_keep_above_the_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"keep \[4, 8, 2\] is larger than the window \[6, 7, 4\]"):
        WindowInferer((6, 7, 4), keep=(4, 8, 2), **FLOAT32)(torch.zeros(1, 1, 12, 9, 6), Recorder())


# Empty windows.


def test_negative_values_are_not_background() -> None:
    """The brain has values from -3 to -1, below the background of 0; one corner is in one modality only."""
    image, recorder = torch.zeros(1, 2, 12, 8, 8), Recorder()
    image[:, :, :6, :4, :4] = -3
    image[:, 1, 7, 7, 7] = -1
    found = WindowInferer((6, 4, 4), overlap=0, empty=(0, 0), fill=(7, 8), **FLOAT32)(image, recorder)
    assert len(recorder.windows) == 2
    assert (found[0, 0, :6, :4, :4] == -3).all() and found[0, 1, 7, 7, 7] == -1
    assert (found[0, 0, :6, 4:] == 7).all() and (found[0, 1, :6, 4:] == 8).all()
    assert (found[0, 0, 6:, 4:, 4:] == 0).all()  # computed

    recorder.windows = []
    WindowInferer((6, 4, 4), overlap=0, empty=0, **FLOAT32)(image, recorder)
    assert len(recorder.windows) == 1  # one number is the upper end, and no value is above 0


@pytest.mark.parametrize(("empty", "computed"), [((-2, 2), 2), ([-2, 3], 1), ((-4, 2), 1), ((-4, 3), 1), (None, 8)])
def test_both_ends_of_the_range_count_as_empty(empty: Any, computed: int) -> None:
    """One window has -4, one has 3, the others lie within -2 to 2; if all are empty, one is computed."""
    image, recorder = torch.zeros(1, 1, 12, 8, 8), Recorder()
    image[..., ::2, ::2, ::2] = -2
    image[..., 1::2, 1::2, 1::2] = 2
    image[..., 0, 0, 0], image[..., 11, 7, 7] = -4, 3
    WindowInferer((6, 4, 4), overlap=0, empty=empty, **FLOAT32)(image, recorder)
    assert len(recorder.windows) == computed


def test_a_window_is_empty_if_its_centre_is() -> None:
    """The only voxel is in the centre of one window, and in the margins of its neighbours."""
    image, recorder = torch.zeros(1, 1, 12, 9, 6), Recorder()
    image[..., 4, 3, 2] = -1
    inferer = WindowInferer((6, 7, 4), keep=(4, 3, 2), empty=(0, 0), fill=5, **FLOAT32)
    found = inferer(image, recorder)
    assert len(recorder.windows) == 1
    expected = torch.full_like(image, 5)
    expected[..., 4:8, 3:6, 2:4] = 0
    expected[..., 4, 3, 2] = -1
    assert torch.equal(found, expected)


def test_an_empty_image_is_filled() -> None:
    inferer = WindowInferer((6, 7, 4), keep=(4, 3, 2), empty=(0, 0), fill=(1, 0), **FLOAT32)
    found = inferer(torch.zeros(2, 2, 11, 9, 7), Recorder())
    assert (found[:, 0] == 1).all() and (found[:, 1] == 0).all() and found.shape == (2, 2, 11, 9, 7)
