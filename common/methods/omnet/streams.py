"""Training patches from several streams, each with its own places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.dataset import SampledCacheDataset
from ...errors import InputError
from ...tensors import as_tensor


class StreamsDataset(SampledCacheDataset):
    """Patches of cached cases, one of each stream together.

    Indexed by ``(case, seed)`` pairs of a :class:`CaseSampler`, which alone determine the sample. The first stream
    takes this case; each of the others takes one that the seed draws uniformly from those that have voxels of the
    stream. So does the first if its case has none. A patch is centred on a voxel drawn uniformly from the stream's in
    its case, and moved into the volume where it would reach out; where the volume is smaller, zeros fill both sides.

    A sample has ``image`` ``(streams, C, *roi_size)`` and ``label`` ``(streams, 1, *roi_size)``, copies of the cached
    type on the cached device.

    Args:
        data, transform, cache_rate: as for MONAI's ``CacheDataset``. The transform draws nothing and gives ``image``
            and ``label`` ``(C, x, y, z)`` on one grid and ``centres``, per stream the flat indices of its voxels,
            possibly none.
        roi_size: patch ``(x, y, z)``.
        streams: names in ``centres``.

    Raises:
        InputError: no case has voxels of a stream.
    """

    def __init__(
        self,
        data: Sequence,
        transform: Callable | Sequence[Callable],
        roi_size: Sequence[int],
        streams: Sequence[str] = ("brain", "tumour", "core"),
        cache_rate: float = 1.0,
    ) -> None:
        super().__init__(data, transform, cache_rate)
        self.roi_size = tuple(roi_size)
        self.streams = tuple(streams)
        self._without: set[tuple[int, str]] = set()  # cases known to have no voxel of a stream
        unseen = set(self.streams)
        for case in range(len(self)):
            centres = self._transform(case)["centres"]
            unseen = {stream for stream in unseen if len(centres[stream]) == 0}
            if not unseen:
                break
        else:
            raise InputError(
                f"none of {len(self)} training cases has a voxel of '{min(unseen)}' to centre a patch on; check that "
                f"the labels are those of the task and that their code is right"
            )

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Tensor]:
        case, seed = index
        patches = []
        for number, stream in enumerate(self.streams):
            rng = np.random.default_rng([seed, number])
            patches.append(self._patch(stream, case if number == 0 else int(rng.integers(len(self))), rng))
        return {key: torch.stack([patch[key] for patch in patches]) for key in ("image", "label")}

    def _patch(self, stream: str, case: int, rng: np.random.Generator) -> dict[str, Tensor]:
        while True:
            if (case, stream) not in self._without:
                item = self._transform(case)
                centres = item["centres"][stream]
                if len(centres) > 0:
                    flat = int(centres[int(rng.integers(len(centres)))])
                    centre = [int(c) for c in np.unravel_index(flat, item["label"].shape[1:])]
                    return {key: _cut(item[key], centre, self.roi_size) for key in ("image", "label")}
                self._without.add((case, stream))
            case = int(rng.integers(len(self)))


def _cut(volume: Tensor, centre: Sequence[int], size: Sequence[int]) -> Tensor:
    """The patch of this size around a voxel of ``(C, x, y, z)``, within the volume."""
    volume = as_tensor(volume)
    box: list[slice] = []
    padding: list[int] = []
    for c, s, n in zip(centre, size, volume.shape[1:]):
        start = min(max(c - s // 2, 0), max(n - s, 0))
        missing = max(s - n, 0)
        box.append(slice(start, start + s))
        padding = [missing // 2, missing - missing // 2, *padding]  # the last axis first
    patch = volume[(slice(None), *box)]
    return F.pad(patch, padding) if any(padding) else patch
