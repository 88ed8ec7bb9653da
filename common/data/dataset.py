"""Hold the cases of a run and draw the samples of a training from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from monai.data import CacheDataset, DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm

from ..errors import InputError, failure_of_case

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Give the cases to infer or evaluate; a broken case does not stop the others.

    An item is the transformed case with its ``case`` name. If its transforms failed for any reason, the item is
    ``{"case": name, "error": message}``.
    """

    def __getitem__(self, index: int) -> dict:
        case = self.data[index]
        if "error" in case:
            return case
        try:
            item = super().__getitem__(index)
            # MONAI names outputs after this entry, which would be the first modality's file
            item["image"].meta["filename_or_obj"] = f"{case['case']}.nii.gz"
            return item
        except Exception as error:
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            return {"case": case["case"], "error": failure_of_case(error, ", ".join(map(str, images)))}


class CachedCases(CacheDataset):
    """Cache the prepared cases of a run, one after the other in the calling thread.

    MONAI's ``CacheDataset`` prepares them in a thread, and does not wait for it when a case fails. The thread can still
    work when the interpreter ends, which aborts the process.

    Args:
        data, transform, cache_rate, copy_cache: as for MONAI's ``CacheDataset``.
    """

    def __init__(
        self,
        data: Sequence,
        transform: Callable | Sequence[Callable],
        cache_rate: float = 1.0,
        copy_cache: bool = True,
    ) -> None:
        super().__init__(data, transform, cache_rate=cache_rate, copy_cache=copy_cache)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list:
        indices = range(self.cache_num) if indices is None else indices
        return [self._load_cache_item(index) for index in tqdm(indices, desc="prepare cases", disable=None)]


class SampledCacheDataset(CachedCases):
    """Cache cases and draw their random transforms from a seed that comes with the index.

    An index is a ``(case, seed)`` pair from a :class:`CaseSampler`. The same pair gives the same sample in any process
    and at any time. Samples share the memory of the cached case; the first random transform must not write to its
    input.

    Args:
        data, transform, cache_rate: as for MONAI's ``CacheDataset``.
    """

    def __init__(self, data: Sequence, transform: Callable | Sequence[Callable], cache_rate: float = 1.0) -> None:
        super().__init__(data, transform, cache_rate, copy_cache=False)

    def __getitem__(self, index: tuple[int, int]) -> dict:
        case, seed = index
        self.transform.set_random_state(seed=seed)
        return super().__getitem__(case)


def batch_size_per_rank(batch_size: int) -> int:
    """Return the number of samples of a batch for this process of a distributed run.

    Raises:
        InputError: the batch size is not a multiple of the number of processes.
    """
    count = idist.get_world_size()
    if batch_size % count:
        raise InputError(f"a batch of {batch_size} cannot be shared by {count} processes; give a multiple of {count}")
    return batch_size // count


class CaseSampler(DistributedSampler):
    """Draw cases uniformly, each with a seed for its random transforms.

    The draws depend on ``seed`` and the epoch alone, so a resumed run continues with the draws of an uninterrupted one.
    N processes share the draws of one. MONAI's trainer sets the epoch of every ``DistributedSampler``.

    Args:
        num_cases: length of the data set.
        num_samples: number of draws in an epoch, over all processes.
        seed: seed of the run.
        distinct: number of draws in succession, a batch over all processes, in which no case comes twice. Where there
            are fewer cases, each comes once before one comes again. With 1, all draws are with replacement.

    Raises:
        InputError: ``num_samples`` is not a multiple of the number of processes.
    """

    def __init__(self, num_cases: int, num_samples: int, seed: int = 0, distinct: int = 1) -> None:
        indices: Any = range(num_cases)  # the base class takes its length only
        super().__init__(indices, num_replicas=idist.get_world_size(), rank=idist.get_rank(), seed=seed)
        if num_samples % self.num_replicas:
            raise InputError(f"{num_samples} samples an epoch cannot be shared by {self.num_replicas} processes")
        self.num_cases = num_cases
        self.distinct = distinct
        self.total_size = num_samples
        self.num_samples = num_samples // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.distinct == 1:
            cases = rng.integers(self.num_cases, size=self.total_size).tolist()
        else:
            batches = range(0, self.total_size, self.distinct)
            rounds = -(-self.distinct // self.num_cases)
            orders = [[rng.permutation(self.num_cases) for _ in range(rounds)] for _ in batches]
            cases = np.concatenate([np.concatenate(order)[: self.distinct] for order in orders])
            cases = cases[: self.total_size].tolist()
        seeds = rng.integers(2**32, size=self.total_size).tolist()
        return iter(list(zip(cases, seeds))[self.rank :: self.num_replicas])


class TrainingLoader(DataLoader):
    """Load the batches of this process from the draws of a :class:`CaseSampler`.

    Args:
        dataset: data set with ``(case, seed)`` indices, such as a :class:`SampledCacheDataset`.
        updates_per_epoch: number of batches in an epoch.
        batch_size: number of samples in a batch, over all processes.
        num_workers: number of worker processes, which live through all epochs.
        seed: seed of the run.
        distinct: whether a batch has no case twice; otherwise, cases are drawn with replacement.

    Raises:
        InputError: ``batch_size`` is not a multiple of the number of processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        updates_per_epoch: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        distinct: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            num_workers=num_workers,
            batch_size=batch_size_per_rank(batch_size),
            sampler=CaseSampler(
                len(dataset), updates_per_epoch * batch_size, seed, distinct=batch_size if distinct else 1
            ),
            persistent_workers=num_workers > 0,
        )
