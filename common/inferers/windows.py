"""Sliding-window inference that computes only what it must."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.utils import ensure_tuple_rep, fall_back_tuple
from torch import Tensor

from ..errors import InputError
from ..memory import check_memory
from ..tensors import as_tensor

PRECISIONS = ("auto", "bfloat16", "float32")

Place = tuple[Any, ...]  # index of the case, all channels, and a window's centre


class Tiles(NamedTuple):
    """How windows lie in an image; without ``keep``, the centre of a window is all of it."""

    image: Tensor  # (B, C, x, y, z), with the margins of the outermost windows
    roi: Sequence[int]  # size of a window
    centre: Sequence[slice]  # in the window
    shape: Sequence[int]  # of what all centres cover
    places: list[Place]  # of the centres, in what they cover
    filled: list[Place]  # those where the image is not empty


def meeting(places: list[Place], mask: Tensor) -> list[Place]:
    """The places that hold a voxel of a mask ``(B, x, y, z)``."""
    held = torch.stack([mask[place].any() for place in places]) if places else mask[:0]  # one transfer from a GPU
    return [place for place, holds in zip(places, held.tolist()) if holds]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that it is the faster choice there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tell: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # PyTorch 2.10 has none
    capabilities = tell() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


class WindowInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer``, with the same windows and weights, in less time and memory.

    The network runs channels-last and, where the device has instructions for it, in bfloat16; windows that hold nothing
    are not computed; outputs are summed in place, in float32. The network must return one tensor of the window's size.

    Args:
        roi_size: window ``(x, y, z)``, in voxels.
        sw_batch_size: windows computed together.
        overlap: of neighbouring windows, as a part of the window, for all axes or each.
        mode: weight of a window's voxels: ``"constant"`` or ``"gaussian"``.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where the device has instructions for it.
        empty: a window whose voxels all lie in this range ``(lowest, highest)``, in every channel, is not computed; one
            number is the highest. ``(0, 0)`` is the range of a background of zeros, whatever else there is. None
            computes all windows.
        fill: the output, for each channel or all, where no window was computed.
        keep: size of a window's centre, in voxels, outside of which nothing of it is used; -1, all along this axis.
            Windows are this far apart, ``overlap`` and ``mode`` have no meaning, and zeros around the image let each
            voxel lie in just one centre. Of an odd margin, the smaller half comes before the centre. A window is empty
            if its centre is.

    Raises:
        InputError: another precision, or, from the call, a ``keep`` larger than the window.
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        sw_batch_size: int = 1,
        overlap: Sequence[float] | float = 0.25,
        mode: str = "constant",
        precision: str = "auto",
        empty: Sequence[float] | float | None = None,
        fill: Sequence[float] | float = 0.0,
        keep: Sequence[int] | None = None,
    ) -> None:
        super().__init__(roi_size, sw_batch_size, overlap, mode)
        if precision not in PRECISIONS:
            raise InputError(f"--precision {precision}: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
        self.precision = precision
        self.empty = empty
        self.fill = fill
        self.keep = keep

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """``(B, C, x, y, z)`` to the network's output at the same size, float32.

        Raises:
            ValueError: the network returns anything but one tensor of the window's size.
        """
        image = as_tensor(inputs)
        shape = image.shape[2:]
        roi = fall_back_tuple(self.roi_size, shape)
        kept = fall_back_tuple(self.keep, roi)
        margins = [r - k for r, k in zip(roi, kept)]
        if min(margins) < 0:
            raise InputError(f"keep {list(kept)}: expected no more than the window of {list(roi)}")
        missing = [max(k - n, 0) if self.keep is None else -n % k for k, n in zip(kept, shape)]
        pads = [(m // 2 + d // 2, (m - m // 2) + (d - d // 2)) for m, d in zip(missing, margins)]  # as MONAI splits
        if any(missing) or any(margins):
            image = F.pad(image, [p for pad in reversed(pads) for p in pad])
        output = self._infer(self._tiles(image, roi, kept), network, *args, **kwargs)
        if any(missing):
            x, y, z = (slice(m // 2, m // 2 + n) for m, n in zip(missing, shape))
            output = output[:, :, x, y, z]
        return MetaTensor(output, meta=dict(inputs.meta)) if isinstance(inputs, MetaTensor) else output

    def _infer(self, tiles: Tiles, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The output for what windows keep of the image."""
        return self._compute(tiles, tiles.filled, self.fill, network, *args, **kwargs)

    def _tiles(self, image: Tensor, roi: Sequence[int], keep: Sequence[int]) -> Tiles:
        centre = [slice((r - k) // 2, (r - k) // 2 + k) for r, k in zip(roi, keep)]
        shape = [n - r + k for n, r, k in zip(image.shape[2:], roi, keep)]
        overlap = ensure_tuple_rep(self.overlap if self.keep is None else 0.0, 3)
        steps = [k if k == n else max(int(k * (1 - o)), 1) for k, n, o in zip(keep, shape, overlap)]
        grid = dense_patch_slices(shape, keep, steps)
        places = [(case, ..., *place) for case in range(len(image)) for place in grid]
        filled = places
        if self.empty is not None:
            low, high = self.empty if isinstance(self.empty, Sequence) else (-math.inf, self.empty)
            x, y, z = (slice(c.start, c.start + n) for c, n in zip(centre, shape))
            covered = image[:, :, x, y, z]
            filled = meeting(places, ((covered < low) | (covered > high)).any(1))
        return Tiles(image, roi, centre, shape, places, filled)

    def _compute(
        self,
        tiles: Tiles,
        places: list[Place],
        fill: Sequence[float] | float,
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The output from some of the windows, and ``fill`` where there is none; one window is computed at least."""
        image, roi = tiles.image, tiles.roi
        x, y, z = tiles.centre
        computed = places or tiles.places[:1]  # at least one, which tells the number of channels
        bfloat16 = self.precision == "bfloat16" or (self.precision == "auto" and computes_bfloat16(image.device))
        mode = self.mode if self.keep is None else "constant"
        keep = [c.stop - c.start for c in tiles.centre]
        weight = compute_importance_map(keep, mode, sigma_scale=self.sigma_scale, device=image.device).float()
        summed: Tensor | None = None
        weights = image.new_zeros(len(image), 1, *tiles.shape, dtype=torch.float32)
        for first in range(0, len(computed), self.sw_batch_size):
            batch = computed[first : first + self.sw_batch_size]
            windows = [
                (case, ..., *(slice(s.start, s.start + r) for s, r in zip(place, roi))) for case, _, *place in batch
            ]
            patches = torch.stack([image[window] for window in windows])
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=bfloat16):
                outputs = network(patches.contiguous(memory_format=torch.channels_last_3d), *args, **kwargs)
            expected = (len(batch), *patches.shape[2:])
            if not isinstance(outputs, Tensor) or (*outputs.shape[:1], *outputs.shape[2:]) != expected:
                found = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(f"the network returned {found} for a window of {list(patches.shape)}")
            if summed is None:
                if image.device.type == "cpu":
                    voxels = " x ".join(map(str, tiles.shape))
                    need = 4 * len(image) * outputs.shape[1] * math.prod(tiles.shape)
                    check_memory(f"{voxels} voxels", f"summing {outputs.shape[1]} outputs of windows", need)
                summed = image.new_zeros(len(image), outputs.shape[1], *tiles.shape, dtype=torch.float32)
            for place, output in zip(batch, outputs[:, :, x, y, z]):
                summed[place].addcmul_(output.float(), weight)
                weights[place] += weight
        assert summed is not None
        if not places:
            weights.zero_()
        if len(places) < len(tiles.places):
            nothing = weights == 0
            value = torch.as_tensor(fill, dtype=torch.float32, device=image.device).reshape(1, -1, 1, 1, 1)
            summed = torch.where(nothing, value, summed)
            weights[nothing] = 1
        return summed.div_(weights)
