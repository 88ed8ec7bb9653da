"""Infer by sliding windows, in less time and memory than MONAI's inferer."""

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
from ..rules import Rule, check_value, fraction_below_one, list_of, number, one_of, or_null, three_of, whole_number
from ..tensors import as_tensor

MANY_CHANNELS = 8  # at least as many are summed channels-last if the network returns them so
AXIS = Rule("a whole number of at least 1, or -1 for the whole axis", lambda n: n == -1 or whole_number(1).holds(n))
FRACTION, NUMBER = fraction_below_one(), number(-math.inf)
OPTIONS: dict[str, Rule] = {
    "roi_size": three_of(AXIS, "[64,64,16]"),
    "keep": or_null(three_of(AXIS, "[20,20,5]")),
    "sw_batch_size": whole_number(1),
    "overlap": Rule(
        f"{FRACTION.expected}, or one for each axis", lambda v: FRACTION.holds(v) or three_of(FRACTION, "").holds(v)
    ),
    "mode": one_of("constant", "gaussian"),
    "precision": one_of("auto", "bfloat16", "float32"),
    "empty": or_null(
        Rule(
            'a number, or the lowest and the highest one, such as "[0,0]"',
            lambda v: NUMBER.holds(v) or (list_of(NUMBER, "").holds(v) and len(v) == 2 and v[0] <= v[1]),
        )
    ),
    "fill": Rule("a number, or one for each channel", lambda v: NUMBER.holds(v) or list_of(NUMBER, "").holds(v)),
}

Place = tuple[Any, ...]  # index of the case, all channels, and the slices of a window's centre


class Tiles(NamedTuple):
    """Hold the windows of a batch of images; without ``keep``, the centre of a window is the whole window."""

    image: Tensor  # (B, C, x, y, z), with the margins of the outermost windows
    roi: Sequence[int]  # window size (x, y, z), in voxels
    centre: Sequence[slice]  # the kept voxels of a window, along x, y, z
    shape: Sequence[int]  # size (x, y, z) of the region that the centres cover together
    places: list[Place]  # all centres, as indices into this region
    filled: list[Place]  # the centres where the image is not empty


def places_in_mask(places: list[Place], mask: Tensor) -> list[Place]:
    """Return the places that contain a voxel of a mask ``(B, x, y, z)``."""
    held = torch.stack([mask[place].any() for place in places]) if places else mask[:0]  # one transfer from a GPU
    return [place for place, holds in zip(places, held.tolist()) if holds]


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for bfloat16, which then is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    read: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # PyTorch 2.10 has none
    capabilities = read() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


class WindowInferer(SlidingWindowInferer):
    """Run a network over a volume with the windows and weights of MONAI's ``SlidingWindowInferer``.

    It needs less time and memory than MONAI's. The network runs channels-last, and in bfloat16 if the device has
    instructions for it. Empty windows are skipped. Outputs are summed in place, in float32.

    The network must return one tensor of the window's size.

    Args:
        roi_size: window size ``(x, y, z)``, in voxels.
        sw_batch_size: number of windows in a batch.
        overlap: overlap of neighbouring windows as a fraction of the window, one for all axes or one for each.
        mode: weights of a window's voxels, ``"constant"`` or ``"gaussian"``.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"`` for bfloat16 if the device has instructions for it.
        empty: range ``(lowest, highest)`` of an empty window. A window is skipped if all its voxels, in every channel,
            lie in this range. One number is the highest value. ``(0, 0)`` fits a background of zeros. None skips none.
        fill: output where no window was computed, one value for all channels or one for each.
        keep: size ``(x, y, z)`` of a window's centre, in voxels; -1 keeps the whole axis. Only the centre of a window
            is used. The centres tile the image, which is padded with zeros, so each voxel lies in exactly one centre.
            ``overlap`` and ``mode`` then have no effect. The smaller half of an odd margin comes before the centre. A
            window is empty if its centre is.

    Raises:
        UsageError: an option has another type or is outside its range.
        InputError: from the call, ``keep`` is larger than the window, or the sum of the outputs does not fit
            the memory.
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
        given = {"roi_size": roi_size, "sw_batch_size": sw_batch_size, "overlap": overlap, "mode": mode}
        for name, value in {**given, "precision": precision, "empty": empty, "fill": fill, "keep": keep}.items():
            check_value(name, value, OPTIONS)
        super().__init__(roi_size, sw_batch_size, overlap, mode)
        self.precision = precision
        self.empty = empty
        self.fill = fill
        self.keep = keep

    def precision_on(self, device: torch.device) -> str:
        """Return the precision of the network on a device, ``"float32"`` or ``"bfloat16"``."""
        automatic = "bfloat16" if computes_bfloat16(device) else "float32"
        return automatic if self.precision == "auto" else self.precision

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the network's output for an image, at the image's size.

        Args:
            inputs: image ``(B, C, x, y, z)``.
            network: callable, windows ``(b, C, *roi_size)`` -> one tensor ``(b, channels, *roi_size)``.
            args, kwargs: further arguments for the network.

        Returns:
            tensor ``(B, channels, x, y, z)``, float32; a ``MetaTensor`` with the image's metadata if the image is one.

        Raises:
            ValueError: the network returns anything but one tensor of the window's size.
        """
        image = as_tensor(inputs)
        shape = image.shape[2:]
        roi = fall_back_tuple(self.roi_size, shape)
        kept = fall_back_tuple(self.keep, roi)
        margins = [r - k for r, k in zip(roi, kept)]
        if min(margins) < 0:
            raise InputError(f"keep {list(kept)} is larger than the window {list(roi)}; give a smaller one")
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
        """Return the output for the region that the centres cover."""
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
            filled = places_in_mask(places, ((covered < low) | (covered > high)).any(1))
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
        """Return the output of the windows at ``places``, and ``fill`` elsewhere."""
        image, roi = tiles.image, tiles.roi
        x, y, z = tiles.centre
        computed = places or tiles.places[:1]  # at least one: its output has the number of channels
        bfloat16 = self.precision_on(image.device) == "bfloat16"
        mode = self.mode if self.keep is None else "constant"
        keep = [c.stop - c.start for c in tiles.centre]
        weight = compute_importance_map(keep, mode, sigma_scale=self.sigma_scale, device=image.device).float()
        summed: Tensor | None = None
        weights = image.new_zeros(len(image), 1, *tiles.shape, dtype=torch.float32)
        for first in range(0, len(computed), self.sw_batch_size):
            batch = computed[first : first + self.sw_batch_size]
            boxes = [
                (case, ..., *(slice(s.start, s.start + r) for s, r in zip(place, roi))) for case, _, *place in batch
            ]
            windows = torch.stack([image[box] for box in boxes])
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=bfloat16):
                outputs = network(windows.contiguous(memory_format=torch.channels_last_3d), *args, **kwargs)
            expected = (len(batch), *windows.shape[2:])
            if not isinstance(outputs, Tensor) or (*outputs.shape[:1], *outputs.shape[2:]) != expected:
                found = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(
                    f"the network returned {found} for windows {list(windows.shape)}, "
                    f"expected one tensor {[len(batch), 'channels', *windows.shape[2:]]}"
                )
            if summed is None:
                if image.device.type == "cpu":
                    voxels = " x ".join(map(str, tiles.shape))
                    need = 4 * len(image) * outputs.shape[1] * math.prod(tiles.shape)
                    check_memory(f"{voxels} voxels", f"the sum of {outputs.shape[1]} output channels", need)
                last = outputs.stride(1) == 1 and outputs.shape[1] >= MANY_CHANNELS
                order = torch.channels_last_3d if last else torch.contiguous_format
                size = (len(image), outputs.shape[1], *tiles.shape)
                summed = torch.empty(size, dtype=torch.float32, device=image.device, memory_format=order).zero_()
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
