"""Save the probabilities of all classes on the grid of a scan as NIfTI."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from ..errors import UsageError
from ..files import whole_file
from ..label_names import BACKGROUND
from ..labels import check_labels
from ..memory import check_memory
from ..tensors import as_tensor, source_of
from .return_to_scan import ReturnToScand

TINY = torch.finfo(torch.float32).tiny


class SaveProbabilitiesd(MapTransform):
    """Write ``output_dir/CASE_prob.nii.gz``, the probability of each class at each voxel of the scan.

    The file has axes x, y, z and class, in float32. The background comes first, then the labels in their order. The
    output of the network is interpolated linearly by the inverse resampling of :class:`ReturnToScand`. The most
    probable class is thus the label of the mask. The probabilities sum to 1 at each voxel. Outside the network's grid,
    as outside a crop, the background has probability 1.

    The classes are written one after the other. They need 16 bytes of memory for each voxel of the scan, 24 with
    ``logits``, for any number of classes. The file appears under its name once it is complete.

    Args:
        keys: output ``(C, x, y, z)`` on the grid of ``image_key``: probabilities of the background and of each label,
            or one channel with the probability of the only label.
        output_dir: folder to write to.
        labels: names to values, without the background.
        image_key: image at the network's input.
        fuse: callable, output ``(C, x, y, z)`` -> probabilities ``(1 + labels, x, y, z)``; None takes the output.
        logits: the output is logits, of which the softmax is taken after the interpolation, as the mask is.
        task: task of the network; ``"class"`` segments nothing.

    Attributes:
        ending: what follows the case in the file name, ``_prob.nii.gz``.
        channels: names of the classes along the last axis.

    Raises:
        UsageError: the task segments nothing.
        InputError: the labels are not valid. For a case: a class does not fit the memory at the scan's size.
        ValueError: there is another number of probabilities than of classes.
    """

    ending = "_prob.nii.gz"

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        labels: Mapping[str, int],
        image_key: str = "image",
        fuse: Callable[[Tensor], Tensor] | None = None,
        logits: bool = False,
        task: str = "seg",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if task == "class":
            raise UsageError("--probabilities true, but --task class segments nothing; leave one of them out")
        self.output_dir = Path(output_dir)
        self.channels = [BACKGROUND, *check_labels(labels)]
        self.image_key = image_key
        self.fuse = fuse
        self.logits = logits
        self.resample = ReturnToScand("part", image_key, output="probabilities")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            scores = as_tensor(d[key])
            scores = scores if self.fuse is None else self.fuse(scores)
            if max(len(scores), 2) != len(self.channels):
                raise ValueError(f"'{key}' of {len(scores)} channels, expected classes {', '.join(self.channels)}")
            shape = [int(n) for n in image.meta["spatial_shape"]]
            check_memory(
                source_of(image, self.image_key),
                f"probabilities of {' x '.join(map(str, shape))} voxels",
                (24 if self.logits else 16) * math.prod(shape),  # float32
                "leave out --probabilities true, or use a machine with more memory",
            )
            path = self.output_dir / f"{d['case']}{self.ending}"
            classes = self._of_logits(scores, image) if self.logits else self._of_probabilities(scores, image)
            _write(path, classes, np.asarray(image.meta["original_affine"]), [*shape, len(self.channels)])
        return d

    def _of_probabilities(self, scores: Tensor, image: MetaTensor) -> Iterator[MetaTensor]:
        """Yield each class ``(1, x, y, z)`` on the scan's grid, the background first."""
        labels = scores if len(scores) == 1 else scores[1:]
        total = torch.ones_like(scores) if len(scores) == 1 else scores.sum(0, keepdim=True).clamp(min=TINY)
        # the interpolation gives 0 outside the network's grid, so that the background is 1 there
        any_label = self._resampled(labels.sum(0, keepdim=True) / total, image)
        yield 1 - any_label
        if len(labels) == 1:
            yield any_label
            return
        del any_label
        for label in labels:
            yield self._resampled(label[None] / total, image)

    def _of_logits(self, scores: Tensor, image: MetaTensor) -> Iterator[MetaTensor]:
        """Yield the softmax of each class ``(1, x, y, z)`` on the scan's grid, the background first."""
        inside = self._resampled(torch.ones_like(scores[:1]), image)
        total = self._resampled(scores[:1], image)
        for score in scores[1:]:
            total = torch.logaddexp(total, self._resampled(score[None], image))
        yield 1 + (self._resampled(scores[:1], image).sub_(total).exp_() - 1).mul_(inside)
        for score in scores[1:]:
            yield self._resampled(score[None], image).sub_(total).exp_().mul_(inside)

    def _resampled(self, part: Tensor, image: MetaTensor) -> MetaTensor:
        result: MetaTensor = self.resample({"part": part, self.image_key: image})["part"]
        return result


def _write(path: Path, classes: Iterator[MetaTensor], affine: np.ndarray, shape: list[int]) -> None:
    """Write volumes ``(1, x, y, z)`` as one image of a shape ``(x, y, z, class)``, slice by slice."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    for set_affine in (header.set_sform, header.set_qform):
        set_affine(affine, code="scanner")
    with (
        whole_file(path) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as file,
    ):
        header.write_to(file)
        for volume in classes:
            for plane in as_tensor(volume)[0].cpu().numpy().transpose(2, 1, 0):
                file.write(np.asarray(plane, dtype=np.float32).tobytes())
            del volume  # before the next class is computed
