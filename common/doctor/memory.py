"""Estimate the memory of caching and inference from headers alone, and that of an update of the training."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..data.volumes import NIFTI_SUFFIXES
from .headers import Header
from .preprocessing import Prepared

PROCESS = 0.55e9  # bytes that Python, PyTorch and MONAI take before a volume is read
ITK = 0.2e9  # bytes that ITK and pydicom take, which read every format but NIfTI


def cache_bytes(case: Prepared, bytes_per_voxel: int = 0) -> int:
    """Return the bytes of a cached case: image in float16, label in uint8, and what transforms add to it.

    Args:
        case: size after preprocessing.
        bytes_per_voxel: bytes that transforms add for each voxel, such as lists of voxels.
    """
    return case.voxels * (2 * case.channels + 1 + bytes_per_voxel)


class InferenceMemory(NamedTuple):
    """Hold the bytes that one case takes in the three steps that run side by side, and in the network's layers.

    The scan has S voxels and the network's grid G. C channels are read, P are prepared, O are put out, all float32.

    - ``reading``: 4 C (2 S + G). The channels of the files and the array that joins them exist at once, or the array as
      read and the reoriented one. The array on the new grid is added.
    - ``computing``: 4 G (P + O + 1). These are the image, the sums of the windows' outputs and the sum of weights. An
      inferer that keeps window centres, skips windows or adds classes copies the first two: 4 G (2 P + 2 O + 1).
    - ``layers``: the most bytes that the network's layers hold at a time for one batch of windows. They come from a run
      with shapes alone; bfloat16 needs less.
    - ``finishing``: 4 G (P + O) + 3 S. These are image and output of the previous case, and the label map on the scan's
      grid with intermediate arrays and the file's content.
    - ``modules``: what reads the file's format, 0 for NIfTI.
    """

    reading: int
    computing: int
    layers: int
    finishing: int
    modules: int = 0

    def of_main_memory(self, cases: int, device: str) -> int:
        """Return the most bytes of main memory that the process takes; with several cases, the steps overlap.

        Args:
            cases: number of cases.
            device: device that computes, ``"cpu"`` or another.
        """
        on_device = [self.computing + self.layers, self.finishing]
        parts = [self.reading, *(on_device if device == "cpu" else [])]
        return int(PROCESS + self.modules + (sum(parts) if cases > 1 else max(parts)))

    def of_gpu(self, cases: int) -> int:
        """Return the most bytes on a CUDA device, which computes prediction and inverse resampling."""
        parts = [self.computing + self.layers, self.finishing]
        return sum(parts) if cases > 1 else max(parts)


def inference_memory(
    header: Header, channels: int, case: Prepared, out_channels: int, layers: int, copies: bool = False
) -> InferenceMemory:
    """Return the memory of a case in inference, see :class:`InferenceMemory`.

    Args:
        header: header of the scan.
        channels: number of channels that are read.
        case: size after preprocessing.
        out_channels: number of output channels of the network.
        layers: bytes of the layers, see :func:`network_memory`.
        copies: True if the inferer copies image and output.
    """
    scan, grid = math.prod(header.shape), case.voxels
    return InferenceMemory(
        reading=4 * channels * (2 * scan + grid),
        computing=4 * grid * ((1 + copies) * (case.channels + out_channels) + 1),
        layers=layers,
        finishing=4 * grid * (case.channels + out_channels) + 3 * scan,
        modules=0 if header.path.name.lower().endswith(NIFTI_SUFFIXES) else int(ITK),
    )


def network_memory(network: torch.nn.Module, batch: Sequence[int]) -> tuple[int, int]:
    """Return the number of output channels of a network, and the most bytes that it holds for a batch in float32.

    The network is moved to PyTorch's device ``meta``, where tensors have shapes but no values, and stays there.

    Args:
        network: the network.
        batch: shape ``(B, C, x, y, z)`` of its input.
    """
    network = network.to("meta").eval()
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    with torch.no_grad(), _Peak() as peak:
        output = network(torch.empty(*batch, device="meta"))
    return output.shape[1], peak.most + weights


def update_memory(network: torch.nn.Module, image: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    """Return the most bytes that an update holds, in float32 and with an optimiser of two moments.

    These are what the forward and the backward pass hold at a time, the weights and twice as much for the moments.

    Args:
        network: network in its training form, which stays as it is; its outputs are tensors, also in a dictionary.
        image: batch of patches ``(B, C, x, y, z)``.
        args, kwargs: further inputs of the network.
    """
    shadow = copy.deepcopy(network).to("meta").train()
    weights = sum(p.numel() * p.element_size() for p in shadow.parameters())
    image, args, kwargs = _on_meta((image, args, kwargs))
    with _Peak() as peak:
        _sum_of(shadow(image, *args, **kwargs)).backward()
    return peak.most + 3 * weights


def _on_meta(value: Any) -> Any:
    """Return a value with all of its tensors on the device ``meta``."""
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, Mapping):
        return {key: _on_meta(one) for key, one in value.items()}
    return type(value)(map(_on_meta, value)) if isinstance(value, (list, tuple)) else value


def _sum_of(outputs: Any) -> torch.Tensor:
    """Return the sum of all tensors in the outputs of a network."""
    if isinstance(outputs, torch.Tensor):
        return outputs.sum()
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    return torch.stack([_sum_of(part) for part in parts]).sum()


class _Peak(TorchDispatchMode):
    """Count the bytes of the tensors that exist."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, storage.nbytes())

    def _drop(self, key: int, count: int) -> None:
        self.known.discard(key)
        self.now -= count
