from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import Compose, MapTransform, ToDeviced
from torch import Tensor

from common.data import CaseSampler
from common.errors import InputError
from common.methods.omnet import FindPatchCentresd, StreamsDataset

SHAPE, ROI = (12, 10, 9), (6, 4, 5)
BRAIN = (slice(1, 11), slice(2, 10), slice(0, 8))


def classes(tumour: tuple[int, int, int] | None, core: bool = True) -> Tensor:
    label = torch.zeros(1, *SHAPE)
    label[(0, *BRAIN)] = 4
    if tumour is not None:
        x, y, z = tumour
        label[0, x - 1 : x + 2, y - 1 : y + 2, z] = 2
        if core:
            label[0, x, y, z] = 3
    return label


class Numberedd(MapTransform):
    """Make an image whose voxels hold the number of the case and their position, in the cached types."""

    calls = 0

    def __call__(self, data: dict) -> dict:
        Numberedd.calls += 1
        label = classes(data["tumour"], data.get("core", True))
        position = torch.stack(torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij"))
        image = torch.cat([torch.full((1, *SHAPE), data["number"]), position])
        return {**data, "image": MetaTensor(image.half()), "label": MetaTensor(label.to(torch.uint8))}


CASES: list[dict[str, Any]] = [
    {"number": 0.0, "tumour": (4, 5, 4)},
    {"number": 1.0, "tumour": None},
    {"number": 2.0, "tumour": (8, 7, 1)},
    {"number": 3.0, "tumour": (8, 7, 1), "core": False},
]
TRANSFORM = Compose([Numberedd("image"), FindPatchCentresd("label", dilation=1)])


def streams(cases: list[dict[str, Any]] = CASES, **options: Any) -> StreamsDataset:
    Numberedd.calls = 0
    return StreamsDataset(cases, TRANSFORM, **{"roi_size": ROI, **options})


def place(patch: Tensor) -> tuple[int, list[int]]:
    """Return the case and the first voxel of a patch of the image."""
    case, *start = patch[:, 0, 0, 0].int().tolist()
    return case, start


def test_a_sample_is_one_patch_of_each_stream() -> None:
    dataset = streams()
    for seed in range(20):
        sample = dataset[2, seed]
        assert sample.keys() == {"image", "label"}
        assert type(sample["image"]) is Tensor and type(sample["label"]) is Tensor
        assert sample["image"].shape == (3, 4, *ROI) and sample["image"].dtype == torch.float16
        assert sample["label"].shape == (3, 1, *ROI) and sample["label"].dtype == torch.uint8
        for image, label in zip(sample["image"], sample["label"], strict=True):
            case, start = place(image)
            box = tuple(slice(s, s + n) for s, n in zip(start, ROI, strict=True))
            cached = TRANSFORM(CASES[case])
            assert torch.equal(image, cached["image"].as_tensor()[(slice(None), *box)])
            assert torch.equal(label, cached["label"].as_tensor()[(slice(None), *box)])


def starts(voxels: Tensor) -> set[tuple[int, ...]]:
    """Return the first voxels of the patches around these, moved into the volume."""
    first = voxels - torch.tensor([n // 2 for n in ROI])
    last = torch.tensor([n - r for n, r in zip(SHAPE, ROI, strict=True)])
    return set(map(tuple, torch.minimum(first.clamp(min=0), last).tolist()))


@pytest.mark.slow
def test_patches_are_centred_on_the_voxels_of_their_stream() -> None:
    dataset = streams(CASES[2:3])
    seen: list[set] = [set(), set(), set()]
    for seed in range(3000):
        for places, image in zip(seen, dataset[0, seed]["image"], strict=True):
            places.add(tuple(place(image)[1]))
    label = classes((8, 7, 1))[0]
    near = torch.zeros_like(label)
    near[6:11, 5:10, 0:3] = 1
    assert seen[0] == starts((label != 0).nonzero())
    assert seen[1] == starts(near.nonzero())
    assert seen[2] == starts((label == 3).nonzero()) and len(seen[2]) == 1


@pytest.mark.slow
def test_voxels_are_drawn_uniformly() -> None:
    dataset = streams(CASES[:1], streams=("tumour",), roi_size=(1, 1, 1))
    drawn = [tuple(place(dataset[0, seed]["image"][0])[1]) for seed in range(7500)]
    counts = [drawn.count(voxel) for voxel in set(drawn)]
    assert len(counts) == 75  # 5 x 5 x 3
    assert min(counts) > 60 and max(counts) < 140


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_stream_uses_the_case_of_the_index(index: int) -> None:
    dataset = streams()
    cases = torch.tensor([[place(image)[0] for image in dataset[index, seed]["image"]] for seed in range(600)])
    assert (cases[:, 0] == index).all()
    assert cases[:, 1].bincount(minlength=4).sub(torch.tensor([200, 0, 200, 200])).abs().max() < 50
    assert cases[:, 2].bincount(minlength=4).sub(torch.tensor([300, 0, 300, 0])).abs().max() < 60
    assert (cases[:, 1] != cases[:, 2]).any()


def test_streams_draw_independently_of_each_other() -> None:
    dataset = streams(streams=("core", "brain", "brain"))
    samples = [dataset[0, seed]["image"] for seed in range(40)]
    assert sum(torch.equal(one, other) for _, one, other in samples) < 5


def test_a_case_without_voxels_is_replaced_in_the_first_stream() -> None:
    dataset = streams(streams=("core", "brain"))
    assert {place(dataset[1, seed]["image"][0])[0] for seed in range(50)} == {0, 2}
    assert {place(dataset[2, seed]["image"][0])[0] for seed in range(50)} == {2}


def test_a_stream_without_voxels_in_any_case_is_refused() -> None:
    with pytest.raises(InputError, match="none of 2 training cases has a voxel of 'core' to centre a patch on"):
        streams([CASES[1], CASES[3]])


def test_a_pair_gives_the_same_sample_in_any_order() -> None:
    dataset, other = streams(), streams()
    pairs = [(case, seed) for case in range(4) for seed in (0, 7, 2**32 - 1)]
    samples = {pair: dataset[pair]["image"] for pair in pairs}
    for pair in reversed(pairs):
        assert torch.equal(other[pair]["image"], samples[pair])
    assert len({tuple(sample.flatten().tolist()) for sample in samples.values()}) == len(pairs)


def test_worker_processes_draw_the_same_patches() -> None:
    dataset = streams()
    alone, shared = (
        list(DataLoader(dataset, sampler=CaseSampler(4, 8), batch_size=2, num_workers=workers)) for workers in (0, 2)
    )
    assert alone[0]["image"].shape == (2, 3, 4, *ROI)
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["label"], other["label"])


def test_the_cache_is_not_written() -> None:
    for options in ({}, {"roi_size": SHAPE}, {"streams": ("brain",), "roi_size": SHAPE}):
        dataset = streams(**options)
        for seed in range(5):
            before = {key: patch.clone() for key, patch in dataset[0, seed].items()}
            for patch in dataset[0, seed].values():
                patch.fill_(9)
            assert all(torch.equal(patch, before[key]) for key, patch in dataset[0, seed].items())
    assert Numberedd.calls == 4


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_samples_do_not_depend_on_the_cached_share(rate: float) -> None:
    whole, part = streams(), streams(cache_rate=rate)
    assert Numberedd.calls <= 3  # what tells that every stream has voxels
    for pair in [(0, 5), (1, 5), (3, 5), (3, 6)]:
        assert torch.equal(whole[pair]["image"], part[pair]["image"])


def test_zeros_fill_both_sides_of_a_small_volume() -> None:
    sample = streams(CASES[:1], roi_size=(15, 4, 11))[0, 3]
    for image, label in zip(sample["image"], sample["label"], strict=True):
        _, start = place(image[:, 1:, :, 1:])  # of 3 voxels missing one is before, of 2 one
        assert start[0] == start[2] == 0
        expected = classes((4, 5, 4))[:, :, start[1] : start[1] + 4]
        assert torch.equal(label[:, 1:13, :, 1:10], expected.to(torch.uint8))
        for patch in (image, label):
            assert not patch[:, :1].any() and not patch[:, 13:].any()
            assert not patch[..., :1].any() and not patch[..., 10:].any()


@pytest.mark.gpu
def test_the_cache_may_lie_on_the_gpu() -> None:
    transform = Compose([*TRANSFORM.transforms, ToDeviced(["image", "label"], "cuda")])
    sample = StreamsDataset(CASES, transform, ROI)[0, 3]
    assert sample["image"].is_cuda and sample["label"].is_cuda
    assert torch.equal(sample["image"].cpu(), streams()[0, 3]["image"])
