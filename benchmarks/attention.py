"""Compare the position attention by an explicit matrix of all pairs with its form of linear memory."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from common.methods.mpunet.attention import PositionAttention

from .measure import Cost, Row, in_fresh_process, measure, peak_above_idle, row

CHANNELS = 256
SIZES = ((32, 32, 6), (32, 32, 12))  # an eighth of 256x256x48, the paper's patch, and of 256x256x96, its validation's
TOLERANCE = 1e-4


def attention_rows(device: torch.device, repeats: int, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> list[Row]:
    """Return the rows of the table. A fresh process measures each form, size and pass.

    Args:
        device: cpu or cuda.
        repeats: number of processes for each figure; the row has the smallest time and the smallest memory.
        sizes: sizes (x, y, z) of the grids of positions.
    """
    rows: list[Row] = []
    clock, clock_name = ("wall", "wall time") if device.type == "cuda" else ("cpu", "CPU time")
    for size in sizes:
        title = f"{size[0] * size[1] * size[2]} positions"
        difference = _difference(size, device)
        equal = difference <= TOLERANCE
        goal = f"<= {TOLERANCE:g}"
        rows.append(row(f"{title}: largest difference of values and gradients / largest value", difference, goal))
        for training, name in ((False, "forward"), (True, "forward and backward")):
            memory, seconds = {}, {}
            for form in ("explicit", "linear"):
                runs = [in_fresh_process(cost, form, size, training, str(device)) for _ in range(repeats)]
                memory[form] = min(extra for extra, _ in runs)
                seconds[form] = min(getattr(time, clock) for _, time in runs)
                print(f"{title}, {name}, {form}: {memory[form] / 2**20:.0f} MiB, {seconds[form]:.2f} s {clock_name}")
            what = f"{title}, {name}: linear / explicit"
            rows.append(row(f"{what}, extra memory", memory["linear"] / memory["explicit"], "<= 0.1", equal))
            rows.append(row(f"{what}, {clock_name}", seconds["linear"] / seconds["explicit"]))
    return rows


def cost(form: str, size: tuple[int, int, int], training: bool, device: str) -> tuple[int, Cost]:
    """Return the attention's peak memory in bytes, without weights and features, and its time.

    Args:
        form: "linear" or "explicit".
        size: size (x, y, z) of the grid of positions.
        training: whether the backward pass is included.
        device: cpu or cuda.
    """
    place = torch.device(device)
    torch.set_num_threads(1)
    attention, x = _attention(form, place), _features(size, place)
    _run(attention, _features((16, 16, 4), place), training)  # loads the libraries before the measurement
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that is reused would hide a part of the peak

    def call() -> None:
        costs.append(measure(lambda: _run(attention, x, training), place))

    costs: list[Cost] = []
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
        idle = torch.cuda.memory_allocated(place)
        call()
        return torch.cuda.max_memory_allocated(place) - idle, costs[0]
    return peak_above_idle(call), costs[0]


def _attention(form: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    attention = PositionAttention(CHANNELS, linear=form == "linear")
    nn.init.constant_(attention.gamma, 0.7)  # at the initial 0, both forms would have equal gradients
    return attention.to(device, memory_format=torch.channels_last_3d)


def _features(size: tuple[int, int, int], device: torch.device) -> Tensor:
    x = torch.randn(1, CHANNELS, *size, generator=torch.Generator().manual_seed(1))
    return x.to(device, memory_format=torch.channels_last_3d)  # as in training and inference


def _run(attention: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    """Return the values; in training also the gradients of the features and of the weights."""
    with torch.set_grad_enabled(training):
        x = x.detach().requires_grad_(training)
        y = attention(x)
        if not training:
            return [y]
        return [y.detach(), *torch.autograd.grad(y, [x, *attention.parameters()], x.detach())]


def _difference(size: tuple[int, int, int], device: torch.device) -> float:
    """Return the largest difference of values and gradients, relative to the largest value."""
    x = _features(size, device)
    pairs = zip(*(_run(_attention(form, device), x, training=True) for form in ("linear", "explicit")))
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
