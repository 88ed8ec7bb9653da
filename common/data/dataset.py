"""Data sets of cases, and the order in which training draws from them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from monai.data import CacheDataset, Dataset
from torch.utils.data.distributed import DistributedSampler

from ..errors import InputError, failure_of_case

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Give the cases to infer or evaluate, of which a broken one does not stop the others.

    An item is the transformed case with its ``case`` name. Where loading or preparing it failed, for whatever reason,
    it is ``{"case": name, "error": message}``.
    """

    def __getitem__(self, index: int) -> dict:
        case = self.data[index]
        if "error" in case:
            return case
        try:
            item = super().__getitem__(index)
            # MONAI names outputs after this entry, which for several files would be the first modality's
            item["image"].meta["filename_or_obj"] = f"{case['case']}.nii.gz"
            return item
        except Exception as error:
            images = [case["image"]] if isinstance(case["image"], str) else case["image"]
            return {"case": case["case"], "error": failure_of_case(error, ", ".join(map(str, images)))}


class SampledCacheDataset(CacheDataset):
    """Cached cases whose random transforms follow a seed given with the index.

    Indexed by ``(case, seed)`` pairs of a :class:`CaseSampler`: the same pair gives the same sample, whatever process
    draws it and whenever. The cached case is not copied; the first random transform must not write into its input.

    Args:
        data, transform, cache_rate: as for MONAI's ``CacheDataset``.
    """

    def __init__(self, data: Sequence, transform: Callable | Sequence[Callable], cache_rate: float = 1.0) -> None:
        super().__init__(data, transform, cache_rate=cache_rate, copy_cache=False, progress=sys.stderr.isatty())

    def __getitem__(self, index: tuple[int, int]) -> dict:
        case, seed = index
        self.transform.set_random_state(seed=seed)
        return super().__getitem__(case)


def batch_size_per_rank(batch_size: int) -> int:
    """This process's part of a batch in a distributed run.

    Raises:
        InputError: the processes cannot share it evenly.
    """
    if batch_size % idist.get_world_size():
        raise InputError(f"a batch of {batch_size} cannot be shared by {idist.get_world_size()} processes")
    return batch_size // idist.get_world_size()


class CaseSampler(DistributedSampler):
    """Cases drawn uniformly with replacement, each with a seed for its random transforms.

    The draws depend on ``seed`` and the epoch alone, so a resumed run continues with the ones it would have had, and N
    processes share the draws of one. MONAI's trainer tells the epoch to every ``DistributedSampler``.

    Args:
        num_cases: length of the data set.
        num_samples: draws per epoch, over all processes.
        seed: seed of the run.
    """

    def __init__(self, num_cases: int, num_samples: int, seed: int = 0) -> None:
        indices: Any = range(num_cases)  # the base class asks for its length alone
        super().__init__(indices, num_replicas=idist.get_world_size(), rank=idist.get_rank(), seed=seed)
        if num_samples % self.num_replicas:
            raise InputError(f"{num_samples} samples an epoch cannot be shared by {self.num_replicas} processes")
        self.num_cases = num_cases
        self.total_size = num_samples
        self.num_samples = num_samples // self.num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        cases = rng.integers(self.num_cases, size=self.total_size).tolist()
        seeds = rng.integers(2**32, size=self.total_size).tolist()
        return iter(list(zip(cases, seeds))[self.rank :: self.num_replicas])
