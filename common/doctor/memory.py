"""About how much memory caching and inference take, from headers alone."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from .headers import Header

REGULAR = ("ResampleAxesd", "Orientationd", "Spacingd", "SpatialPadd")  # what they do follows from the grid alone
SIZED = ("CropBodyd",)  # crops to a size that the config gives
CHOOSING = ("SelectChannelsd",)  # leave out channels
KEEPING = (  # neither grid nor channels change; so do the steps called Check...
    "BratsLabelsd", "CastToTyped", "ClassIndexd", "ClipChannelsd", "ClipScaled", "ClipStandardized", "DeleteItemsd",
    "EnsureChannelFirstd", "FindLesionCentresd", "LoadImaged", "MapLabelValued", "NormalizeBodyd", "NormalizeBraind",
    "ToDeviced", "FindTumourVoxelsd",
)  # fmt: skip
INDICES = {"FindPatchCentresd": 4}  # bytes a voxel that a step adds to a cached case, at most
PROCESS = 0.7e9  # bytes of Python, PyTorch and MONAI before a volume is read


class Prepared(NamedTuple):
    """A case as preprocessing leaves it."""

    shape: tuple[int, ...]  # (x, y, z)
    channels: int

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)


class Preprocessing:
    """Compute what the steps of a config make of a grid, without a voxel.

    Steps that follow from the grid alone are the config's own, called with a volume of no channels. A crop to a size is
    computed. A crop to what is in the image cannot be known and is left out: the result is the largest possible. A
    step of a name that stands in none of the tables above is left out too, and is in ``unknown``, for a warning.

    Args:
        parser: the config.
        key: where its preprocessing stands, such as ``"train#preprocessing"``; random steps and later ones are left
            out.
    """

    def __init__(self, parser: ConfigParser, key: str) -> None:
        self.parser = parser
        self.steps: list[tuple[str, str, dict]] = []  # name, id and config
        for step_id, config in _steps(parser, key):
            name = str(config["_target_"]).rpartition(".")[2]
            if name.startswith("Rand"):
                break
            self.steps.append((name, step_id, config))
        self.crops = [n for n, *_ in self.steps if n.startswith("Crop")]  # to what is in the image
        known = {*REGULAR, *SIZED, *CHOOSING, *KEEPING, *INDICES, *self.crops}
        self.unknown = [n for n, *_ in self.steps if n not in known and not n.startswith("Check")]
        self.index_bytes = sum(INDICES.get(name, 0) for name, *_ in self.steps)

    def __call__(self, header: Header, channels: int) -> Prepared:
        """Return grid and channels of a scan of ``channels`` after all steps.

        Raises:
            InputError: a step would need more memory than there is.
        """
        keys = ("image", "label")
        data: dict[Any, Any] = {key: _volume(header.shape, header.affine, 0, header.path) for key in keys}
        for name, step_id, config in self.steps:
            if name in REGULAR:
                step = self.parser.get_parsed_content(step_id)
                try:
                    data = step(data) if step is not None else data
                except InputError:
                    raise
                except ValueError:  # sheared axes, for which MONAI wants a channel
                    data = step({key: _volume(value.shape[1:], value.affine, 1) for key, value in data.items()})
                    data = {key: _volume(value.shape[1:], value.affine, 0) for key, value in data.items()}
            elif name in SIZED:
                size = np.add(self._value(config, "roi_size"), 2 * np.asarray(self._value(config, "margin") or [0] * 3))
                data["image"] = _volume((*size[:2].tolist(), max(data["image"].shape[3], int(size[2]))), None, 0)
            elif name in CHOOSING:
                channels = len(self._value(config, "channels"))
        return Prepared(tuple(data["image"].shape[1:]), channels)

    def _value(self, config: dict, key: str) -> Any:
        value = config.get(key)
        reference = re.fullmatch(r"@([\w#]+)", value) if isinstance(value, str) else None
        return self.parser.get_parsed_content(reference[1]) if reference else value


def cache_bytes(case: Prepared, index_bytes: int = 0) -> int:
    """Memory of a cached case: two bytes for each voxel and channel, float16, and one for the label, uint8.

    Args:
        case: after preprocessing.
        index_bytes: of the voxels' indices that some method caches as well, for each voxel.
    """
    return case.voxels * (2 * case.channels + 1 + index_bytes)


class InferenceMemory(NamedTuple):
    """Bytes that the largest case takes in the three things that go on side by side, and in the network's layers.

    With S voxels of the scan and G of the network's grid, C channels read, P prepared, O put out, all float32:

    - ``reading``: 4 C (2 S + G). The files' channels stand beside the array that joins them, or an array as read beside
      the one that is turned and resampled; then comes the one on the new grid.
    - ``computing``: 4 G (P + O + 1). The image, the sums of the windows' outputs, the sum of their weights. Of an
      inferer that keeps centres, leaves windows out or adds classes, 4 G (2 P + 2 O + 1): a copy of image and sums.
    - ``layers``: of one batch of windows, the most that the network's layers hold at a time, from a run of its shapes;
      less in bfloat16.
    - ``finishing``: 4 G (P + O) + 3 S. Image and output of the case before; the label map of the scan with what is
      needed to decide it, and the file's content.
    """

    reading: int
    computing: int
    layers: int
    finishing: int

    def of_main_memory(self, cases: int, device: str) -> int:
        """The most that the process takes, with itself; of several cases, the three go on side by side."""
        there = [self.computing + self.layers, self.finishing] if device == "cpu" else [0, 0]
        parts = [self.reading, *there]
        return int(PROCESS + (sum(parts) if cases > 1 else max(parts)))

    def of_gpu(self, cases: int) -> int:
        """The most on a CUDA device, where prediction and way back are computed."""
        parts = [self.computing + self.layers, self.finishing]
        return sum(parts) if cases > 1 else max(parts)


def inference_memory(
    header: Header, channels: int, case: Prepared, out_channels: int, layers: int, copies: bool = False
) -> InferenceMemory:
    """See :class:`InferenceMemory`.

    Args:
        header: of the scan.
        channels: that are read.
        case: after preprocessing.
        out_channels: of the network.
        layers: see :func:`network_memory`.
        copies: whether the inferer copies image and output.
    """
    scan, grid = math.prod(header.shape), case.voxels
    return InferenceMemory(
        reading=4 * channels * (2 * scan + grid),
        computing=4 * grid * ((1 + copies) * (case.channels + out_channels) + 1),
        layers=layers,
        finishing=4 * grid * (case.channels + out_channels) + 3 * scan,
    )


def network_memory(network: torch.nn.Module, batch: Sequence[int]) -> tuple[int, int]:
    """Output channels of a network, and the bytes that it holds at most while it computes a batch, in float32.

    The network runs on PyTorch's device ``meta``, where tensors have shapes and no values; it stays there.

    Args:
        batch: shape ``(B, C, x, y, z)``.
    """
    network = network.to("meta").eval()
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    with torch.no_grad(), _Peak() as peak:
        output = network(torch.empty(*batch, device="meta"))
    return output.shape[1], peak.most + weights


class _Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive."""

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


def _volume(shape: Sequence[int], affine: Any, channels: int, path: Path = Path("image")) -> MetaTensor:
    affine = torch.eye(4) if affine is None else torch.as_tensor(affine)
    meta = {"original_affine": affine, "filename_or_obj": str(path)}
    return MetaTensor(torch.zeros(1).expand(channels, *shape), affine=affine, meta=meta)


def _steps(parser: ConfigParser, key: str) -> Iterator[tuple[str, dict]]:
    """The transforms of a preprocessing in their order, through the references of its expressions, not built."""
    content = parser[key]
    if isinstance(content, dict) and "transforms" in content:
        yield from _steps(parser, f"{key}#transforms")
    elif isinstance(content, dict) and "_target_" in content:
        yield key, content
    elif isinstance(content, list):
        for index in range(len(content)):
            yield from _steps(parser, f"{key}#{index}")
    elif isinstance(content, str) and content.startswith(("$", "@")):
        for reference in re.findall(r"@([\w#]+)", content):
            yield from _steps(parser, reference)
