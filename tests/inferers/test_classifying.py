"""Test sliding-window inference with segmentation and class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from common.errors import InputError
from common.inferers import ClassifyingWindowInferer, WindowInferer

OPTIONS: dict[str, Any] = {"roi_size": (4, 4, 4), "overlap": 0, "precision": "float32"}


class ByWindow:
    """Return the image's first channel as probability; as class logits the largest value of the second, and 0."""

    def __init__(self) -> None:
        self.windows: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.windows += list(x)
        logit = x[:, 1:].amax((2, 3, 4), keepdim=True).expand(-1, -1, *x.shape[2:])
        return torch.cat([x[:, :1], logit, torch.zeros_like(logit)], 1)


def sigmoid(value: float) -> float:
    return torch.tensor(value).sigmoid().item()


def scene() -> Tensor:
    """Return four windows along x with logits 1, 2, 3 and 4; the second has one foreground voxel, the third three."""
    image = torch.zeros(1, 2, 16, 4, 4)
    image[0, 1] = torch.arange(1, 5).repeat_interleave(4)[:, None, None]
    image[0, 0, 4, 0, 0] = 0.5
    image[0, 0, 8:11, 3, 3] = 0.9
    return image


P1, P2, P3, P4 = (sigmoid(v) for v in (1.0, 2.0, 3.0, 4.0))


@pytest.mark.parametrize(
    ("vote", "expected"), [("foreground", (P2 + P3) / 2), ("volume", (P2 + 3 * P3) / 4)], ids=["foreground", "volume"]
)
@pytest.mark.parametrize("sw_batch_size", [1, 3, 8])
def test_windows_with_foreground_vote(vote: str, expected: float, sw_batch_size: int) -> None:
    image = scene()
    found = ClassifyingWindowInferer(num_classes=2, vote=vote, sw_batch_size=sw_batch_size, **OPTIONS)(
        image, ByWindow()
    )
    assert found.shape == (1, 3, 16, 4, 4) and found.dtype == torch.float32
    torch.testing.assert_close(found[:, :1], image[:, :1])
    torch.testing.assert_close(found[:, 1], torch.full((1, 16, 4, 4), expected))
    torch.testing.assert_close(found[:, 2], torch.full((1, 16, 4, 4), 1 - expected))


@pytest.mark.parametrize("vote", ["foreground", "volume"])
def test_without_foreground_all_windows_vote(vote: str) -> None:
    image = scene()
    image[:, 0] *= 0.5
    found = ClassifyingWindowInferer(num_classes=2, vote=vote, **OPTIONS)(image, ByWindow())
    torch.testing.assert_close(found[0, 1, 0, 0, 0].item(), (P1 + P2 + P3 + P4) / 4)
    image[:, :, 4:8] = 0  # the second window is empty now and skipped
    found = ClassifyingWindowInferer(num_classes=2, vote=vote, empty=0, **OPTIONS)(image, ByWindow())
    torch.testing.assert_close(found[0, 1, 0, 0, 0].item(), (P1 + P3 + P4) / 3)


def test_probabilities_are_averaged_not_logits() -> None:
    image = scene()
    image[0, 1, 4:8], image[0, 1, 8:12] = 9.0, -1.0
    found = ClassifyingWindowInferer(num_classes=2, **OPTIONS)(image, ByWindow())
    torch.testing.assert_close(found[0, 1, 0, 0, 0].item(), (sigmoid(9.0) + sigmoid(-1.0)) / 2)


@pytest.mark.parametrize("vote", ["foreground", "volume"])
def test_the_largest_of_several_channels_is_foreground(vote: str) -> None:
    """Logits of background and two classes; equal logits are background."""

    def network(x: Tensor) -> Tensor:
        logit = x[:, 3:].amax((2, 3, 4), keepdim=True).expand(-1, -1, *x.shape[2:])
        return torch.cat([x[:, :3], logit, -logit], 1)

    image = torch.zeros(1, 4, 12, 4, 4)
    image[0, 3] = torch.arange(1, 4).repeat_interleave(4)[:, None, None] / 2
    image[0, 0] = -1
    image[0, 1:3] = -2
    image[0, 1, :4] = -1  # equal
    image[0, 2, 4:6] = -0.5  # 2 x 4 x 4 voxels
    image[0, 1, 8:9] = -0.5  # 1 x 4 x 4 voxels
    found = ClassifyingWindowInferer(num_classes=2, vote=vote, **OPTIONS)(image, network)
    expected = {"foreground": (P2 + P3) / 2, "volume": (2 * P2 + P3) / 3}[vote]
    torch.testing.assert_close(found[0, 3, 0, 0, 0].item(), expected)
    torch.testing.assert_close(found[:, :3], image[:, :3])


def test_each_case_of_a_batch_has_its_own_votes() -> None:
    image = torch.cat([scene(), scene(), torch.zeros(1, 2, 16, 4, 4)])
    image[1, 0] = 0
    image[1, 1, :4] = 0
    found = ClassifyingWindowInferer(num_classes=2, sw_batch_size=3, empty=0, **OPTIONS)(image, ByWindow())
    torch.testing.assert_close(found[:2, 1, 5, 2, 1], torch.tensor([(P2 + P3) / 2, (P2 + P3 + P4) / 3]))
    assert found[2, 1:].isnan().all() and (found[2, 0] == 0).all()


@pytest.mark.parametrize("keep", [None, (2, 2, 4)])
def test_segmentation_equals_that_of_window_inferer(keep: Any) -> None:
    image = torch.rand(1, 2, 11, 6, 5)
    affine = torch.diag(torch.tensor([2.0, 2, 4, 1], dtype=torch.float64))
    options = {**OPTIONS, "overlap": 0.5, "mode": "gaussian", "keep": keep, "empty": 0.3, "fill": 0.25}
    found = ClassifyingWindowInferer(num_classes=2, **options)(MetaTensor(image, affine=affine), ByWindow())
    expected = WindowInferer(**options)(image, lambda x: x[:, :1])
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine)
    assert found.shape == (1, 3, 11, 6, 5)
    assert torch.equal(found.as_tensor()[:, :1], expected)


def test_windows_at_the_border_count_like_others() -> None:
    """Five windows overlap along x, in an image padded along y and z; two of them contain voxel 3."""
    image = torch.rand(1, 2, 14, 3, 2) * 0.4
    image[0, 0, 3, 2, 1] = 0.5
    network = ByWindow()
    found = ClassifyingWindowInferer(num_classes=2, **{**OPTIONS, "overlap": 0.25})(image, network)
    assert len(network.windows) == 5
    expected = [image[0, 1, first : first + 4].max().sigmoid() for first in (0, 3)]
    torch.testing.assert_close(found[0, 1, 0, 0, 0], torch.stack(expected).mean())


def test_without_segmentation_all_windows_vote() -> None:
    found = ClassifyingWindowInferer(num_classes=2, **OPTIONS)(scene(), lambda x: ByWindow()(x)[:, 1:])
    assert found.shape == (1, 2, 16, 4, 4)
    torch.testing.assert_close(found[0, 0, 3, 1, 2].item(), (P1 + P2 + P3 + P4) / 4)


def test_without_classes_the_output_is_the_segmentation() -> None:
    image = torch.rand(1, 2, 8, 4, 4)
    assert torch.equal(ClassifyingWindowInferer(num_classes=0, **OPTIONS)(image, lambda x: x), image)


def test_outputs_of_windows_are_not_kept() -> None:
    memory: list[StorageWeakRef] = []
    kept = 0

    def network(x: Tensor) -> Tensor:
        nonlocal kept
        kept = max(kept, sum(not storage.expired() for storage in memory))
        output = torch.rand(1, 7, *x.shape[2:])
        memory.append(StorageWeakRef(output.untyped_storage()))
        return output

    ClassifyingWindowInferer(num_classes=2, **OPTIONS)(torch.rand(1, 2, 24, 4, 4), network)
    assert len(memory) > 3 and kept <= 1  # the output of the previous window


def test_arguments_reach_the_network() -> None:
    def network(x: Tensor, gain: float, shift: float) -> Tensor:
        return ByWindow()(x) * gain + shift

    found = ClassifyingWindowInferer(num_classes=2, **OPTIONS)(scene(), network, 2.0, shift=1.0)
    torch.testing.assert_close(found[:, :1], scene()[:, :1] * 2 + 1)


def test_a_wrong_vote_or_too_few_channels_are_refused() -> None:
    with pytest.raises(InputError, match="--vote mean: expected foreground or volume"):
        ClassifyingWindowInferer(num_classes=2, vote="mean", **OPTIONS)
    with pytest.raises(ValueError, match=r"returned \[1, 2, 4, 4, 4\], expected 3 class logits"):
        ClassifyingWindowInferer(num_classes=3, **OPTIONS)(torch.rand(1, 2, 4, 4, 4), lambda x: x)
    for output, found in (({}, "dict"), (torch.zeros(1, 3), r"\[1, 3\]")):
        with pytest.raises(ValueError, match=f"the network returned {found} for windows"):
            ClassifyingWindowInferer(num_classes=2, **OPTIONS)(torch.rand(1, 2, 4, 4, 4), lambda x: output)  # noqa: B023


@pytest.mark.parametrize(
    ("background", "expected"), [(False, (P2 + 3 * P3) / 4), (True, (P1 + P2 + P3 + P4) / 4)], ids=["without", "with"]
)
def test_the_first_of_several_maps_may_be_foreground(background: bool, expected: float) -> None:
    """Here it is the only map with foreground; as the background, it gives the windows equal votes."""
    network = ByWindow()
    infer = ClassifyingWindowInferer(num_classes=2, vote="volume", background=background, **OPTIONS)
    found = infer(scene(), lambda x: torch.cat([x[:, :1], torch.zeros_like(x[:, :1]), network(x)[:, 1:]], 1))
    torch.testing.assert_close(found[0, 2, 0, 0, 0].item(), expected, rtol=0, atol=1e-5)
