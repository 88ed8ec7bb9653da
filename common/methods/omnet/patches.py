"""Find the voxels on which the training patches of the three tasks are centred, and draw the patches.

Section III-A: the patches of the first task lie anywhere in the brain, those of the second around the whole tumour,
those of the third in its core. The patches of one task are a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ...data.dataset import SampledCacheDataset
from ...errors import InputError
from ...tensors import as_tensor, dilate
from ...transforms.patches import centred_start, cut_patch, move_inside
from .classes import CORE, TUMOUR


class FindPatchCentresd(MapTransform):
    """Find the voxels on which the training patches of OM-Net's three tasks are centred (section III-A).

    Add an entry of flat indices into the label, int32 on the CPU: "brain", all classes but 0; "tumour", the classes 1,
    2 and 3 and the voxels near them; "core", the classes 1 and 3. Any of them may be empty.

    Args:
        keys: the label ``(1, x, y, z)`` of the classes 0 to 4, on the grid on which patches are cut.
        dilation: distance from the tumour, in voxels along each axis and diagonal, up to which a voxel is near.
        output_key: key of the new entry.
    """

    bytes_per_voxel = 4  # int32; the three lists together have no more entries than the brain's box has voxels

    def __init__(self, keys: KeysCollection = "label", dilation: int = 5, output_key: str = "centres") -> None:
        super().__init__(keys)
        self.dilation = dilation
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor | dict[str, Tensor]]:
        d: dict = dict(data)
        label = as_tensor(torch.as_tensor(d[self.first_key(d)]))
        tumour = torch.isin(label, label.new_tensor(TUMOUR))
        masks = {
            "brain": label != 0,
            "tumour": dilate(tumour, self.dilation),
            "core": torch.isin(label, label.new_tensor(CORE)),
        }
        d[self.output_key] = {name: mask.flatten().nonzero()[:, 0].int().cpu() for name, mask in masks.items()}
        return d


class StreamsDataset(SampledCacheDataset):
    """Draw one patch of each stream from cached cases.

    The index is a ``(case, seed)`` pair of a :class:`CaseSampler`, which alone determines the sample. The first stream
    uses this case. For each other stream, the seed draws a case uniformly from those that have voxels of the stream.
    The first stream does the same if its case has none. A patch is centred on a voxel that is drawn uniformly from the
    stream's voxels in the case. A patch that reaches out of the volume is moved inside; where the volume is smaller
    than the patch, zeros fill both sides.

    A sample has ``image`` ``(streams, C, *roi_size)`` and ``label`` ``(streams, 1, *roi_size)``, copies of the cached
    type on the cached device.

    Args:
        data, transform, cache_rate: as for MONAI's ``CacheDataset``. The transform draws nothing. It returns ``image``
            and ``label`` ``(C, x, y, z)`` on one grid and the ``centres`` of :class:`FindPatchCentresd`.
        roi_size: patch size ``(x, y, z)`` in voxels.
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
                "the labels belong to this task and that their label_code is right"
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
                    shape = item["label"].shape[1:]
                    flat = int(centres[int(rng.integers(len(centres)))])
                    centre = [int(c) for c in np.unravel_index(flat, shape)]
                    start = move_inside(centred_start(centre, self.roi_size), self.roi_size, shape)
                    return {key: cut_patch(item[key], start, self.roi_size) for key in ("image", "label")}
                self._without.add((case, stream))
            case = int(rng.integers(len(self)))
