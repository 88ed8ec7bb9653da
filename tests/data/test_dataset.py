"""Test data sets, draws and batches of a training."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import (
    CastToTyped,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    MapTransform,
    Randomizable,
    RandSpatialCropd,
)

from common.data import (
    CachedCases,
    CaseDataset,
    CaseSampler,
    SampledCacheDataset,
    TrainingLoader,
    VolumeReader,
    batch_size_per_rank,
)
from common.errors import InputError


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make the code believe that it is one of several processes."""

    def be(rank: int, of: int) -> None:
        monkeypatch.setattr("ignite.distributed.get_rank", lambda: rank)
        monkeypatch.setattr("ignite.distributed.get_world_size", lambda: of)

    return be


# The sampler.


def draws(epoch: int = 0, **options: Any) -> list[tuple[int, int]]:
    sampler = CaseSampler(**{"num_cases": 7, "num_samples": 24, "seed": 0, **options})
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def test_every_case_is_drawn_as_often_as_any_other() -> None:
    counts = np.bincount([case for case, _ in draws(num_samples=7000)], minlength=7)
    assert counts.min() > 900 and counts.max() < 1100
    assert len({seed for _, seed in draws(num_samples=7000)}) > 6900


def test_draws_depend_on_the_seed_and_the_epoch_alone() -> None:
    assert draws(epoch=3) == draws(epoch=3)
    assert draws(epoch=3) != draws(epoch=4)
    assert draws(epoch=3) != draws(epoch=3, seed=1)
    torch.rand(5), np.random.rand(5)  # a resumed run is elsewhere in these streams
    assert draws(epoch=3) == draws(epoch=3)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_batches_of_several_processes_are_those_of_one(processes: Callable, world: int) -> None:
    one, batch = draws(epoch=2), 12
    shares = []
    for rank in range(world):
        processes(rank, world)
        shares.append(draws(epoch=2))
        assert len(shares[-1]) == 24 // world
    part = batch // world
    for update in range(24 // batch):
        together = [draw for share in shares for draw in share[update * part : (update + 1) * part]]
        assert sorted(together) == sorted(one[update * batch : (update + 1) * batch])


@pytest.mark.parametrize(("cases", "batch"), [(7, 4), (3, 8), (2, 2)])
def test_a_batch_has_no_case_twice_while_others_wait(processes: Callable, cases: int, batch: int) -> None:
    options = {"num_cases": cases, "num_samples": 800, "distinct": batch}
    one = draws(**options)
    assert one == draws(**options) != draws(epoch=1, **options)
    for first in range(0, 800, batch):
        counts = np.bincount([case for case, _ in one[first : first + batch]], minlength=cases)
        assert counts.max() - counts.min() <= 1
    total = np.bincount([case for case, _ in one], minlength=cases)
    assert total.min() > 0.8 * 800 / cases
    processes(1, 2)
    assert draws(**options) == one[1::2]


def test_the_loader_draws_no_case_twice_for_a_batch() -> None:
    loader = TrainingLoader(Indexed([{}] * 5), updates_per_epoch=50, batch_size=4, seed=5, distinct=True)
    assert all(len(set(batch["pair"][:, 0].tolist())) == 4 for batch in loader)


def test_samples_that_cannot_be_shared_are_refused(processes: Callable) -> None:
    processes(0, 5)
    with pytest.raises(InputError, match="24 samples an epoch cannot be shared by 5 processes"):
        CaseSampler(num_cases=7, num_samples=24)


def test_a_batch_is_shared_evenly_or_refused(processes: Callable) -> None:
    assert batch_size_per_rank(8) == 8
    processes(1, 4)
    assert batch_size_per_rank(8) == 2
    with pytest.raises(InputError, match="a batch of 6 cannot be shared by 4 processes"):
        batch_size_per_rank(6)


def test_the_loader_has_the_batches_of_the_sampler(processes: Callable) -> None:
    data = [{"index": pair} for pair in range(7)]
    loader = TrainingLoader(Indexed(data), updates_per_epoch=3, batch_size=4, seed=5)
    drawn = draws(num_samples=12, seed=5)
    assert [batch["pair"].tolist() for batch in loader] == [[list(d) for d in drawn[i : i + 4]] for i in (0, 4, 8)]
    processes(1, 2)
    loader = TrainingLoader(Indexed(data), updates_per_epoch=3, batch_size=4, seed=5)
    assert len(loader) == 3 and loader.batch_size == 2
    with pytest.raises(InputError, match="a batch of 3 cannot be shared by 2 processes"):
        TrainingLoader(Indexed(data), updates_per_epoch=3, batch_size=3)


class Indexed(Dataset):
    """Return the index itself."""

    def __getitem__(self, index: Any) -> Any:
        return {"pair": torch.tensor(index)}


def test_more_samples_than_cases_and_fewer() -> None:
    assert len(draws(num_cases=1, num_samples=5)) == 5
    assert len(draws(num_cases=100, num_samples=5)) == 5


# Cached cases.


class AddNoised(Randomizable, MapTransform):
    def __call__(self, data: dict) -> dict:
        return {**data, "image": data["image"] + float(self.R.standard_normal())}


class Counted(MapTransform):
    """Count the calls of a step with a cached result."""

    calls = 0

    def __call__(self, data: dict) -> dict:
        Counted.calls += 1
        return {**data, "image": MetaTensor(torch.arange(2 * 12.0**2 * 10).reshape(2, 12, 12, 10) * data["factor"])}


PATCH = (RandSpatialCropd("image", (6, 6, 4), random_size=False), CastToTyped("image", torch.float64))  # a copy


@pytest.fixture
def cached() -> SampledCacheDataset:
    Counted.calls = 0
    cases = [{"factor": 1.0}, {"factor": -1.0}]
    return SampledCacheDataset(cases, Compose([Counted("image"), *PATCH, AddNoised("image")]))


def test_the_same_pair_is_the_same_sample(cached: SampledCacheDataset) -> None:
    first = cached[0, 11]["image"]
    others = [cached[0, 12]["image"], cached[1, 11]["image"], cached[1, 2**32 - 1]["image"]]
    assert torch.equal(cached[0, 11]["image"], first)
    assert all(not torch.equal(first, other) for other in others)
    assert Counted.calls == 2


def test_a_cached_case_is_not_changed_by_sampling() -> None:
    cached = SampledCacheDataset([{"factor": 1.0}], Compose([Counted("image"), *PATCH]))
    before = cached[0, 0]["image"].clone()
    for seed in range(5):
        cached[0, seed]["image"].zero_()
    assert torch.equal(cached[0, 0]["image"], before)


def test_worker_processes_draw_the_same(cached: SampledCacheDataset) -> None:
    alone, shared = (
        list(DataLoader(cached, sampler=CaseSampler(2, 8), batch_size=2, num_workers=workers)) for workers in (0, 2)
    )
    assert len(alone) == 4
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["image"], other["image"])


def test_no_thread_outlives_a_case_that_fails() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError):
        CachedCases([{"image": "none.nii.gz"}, {"image": "none.nii.gz"}], Compose([LoadImaged("image")]))
    assert threading.active_count() == before


def test_part_of_the_cases_may_be_cached() -> None:
    cases = [{"factor": 1.0}, {"factor": -1.0}]
    transform = Compose([Counted("image"), *PATCH, AddNoised("image")])
    whole, half = (SampledCacheDataset(cases, transform, cache_rate=rate) for rate in (1.0, 0.5))
    for case in (0, 1):
        assert torch.equal(whole[case, 5]["image"], half[case, 5]["image"])


# Cases to infer.


@pytest.fixture
def volumes(write_nifti: Callable) -> list[Path]:
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    return [write_nifti(f"P1_{name}.nii.gz", volume + i) for i, name in enumerate(("T1", "T2"))]


@pytest.fixture
def load() -> Compose:
    return Compose([LoadImaged("image", reader=VolumeReader(["T1", "T2"])), EnsureChannelFirstd("image")])


def test_a_case_is_transformed_and_named(volumes: list[Path], load: Compose) -> None:
    item = CaseDataset([{"case": "P1", "image": [str(p) for p in volumes]}], load)[0]
    assert item["case"] == "P1"
    assert item["image"].shape == (2, 3, 4, 5)
    assert item["image"].meta["filename_or_obj"] == "P1.nii.gz"


def test_a_case_with_an_error_is_returned_as_it_is(load: Compose) -> None:
    case = {"case": "P2", "error": "P2: no T2"}
    assert CaseDataset([case], load)[0] == case


def test_a_case_that_cannot_be_read_is_an_error_item(volumes: list[Path], load: Compose) -> None:
    volumes[1].write_bytes(volumes[1].read_bytes()[:80])
    images = [str(p) for p in volumes]
    data = CaseDataset([{"case": "broken", "image": images}, {"case": "whole", "image": images[0]}], load)
    assert data[0].keys() == {"case", "error"}
    assert data[0]["error"].startswith(f"{volumes[1]}: not a complete NIfTI file")
    assert data[1]["error"].startswith(f"{volumes[0]}: 1 channel, expected 2 (T1, T2)")


def test_an_error_of_the_program_is_an_item_too(volumes: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    def step(data: dict) -> dict:
        raise TypeError("unexpected")

    (item,) = CaseDataset([{"case": "P1", "image": str(volumes[0])}], Compose([step]))
    assert item["case"] == "P1"
    assert re.fullmatch(rf"{volumes[0]}: internal error \(TypeError: unexpected\); report it .*", item["error"])
    assert "Traceback" in caplog.text


def test_a_file_without_permission_says_so(volumes: list[Path]) -> None:
    def step(data: dict) -> dict:
        raise PermissionError(errno.EACCES, "Permission denied", data["image"])

    (item,) = CaseDataset([{"case": "P1", "image": str(volumes[0])}], Compose([step]))
    assert item["error"].startswith(f"{volumes[0]}: permission denied; ")
