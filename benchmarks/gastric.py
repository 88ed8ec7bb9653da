"""Compare MA-MTLN with a literal implementation of its formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common.methods.mamtln import MAMTLN
from common.methods.mamtln.attention import ASAModule, TaskAttention, VABlock, VALayer, WeightedFusion
from common.methods.mamtln.backbone import Backbone, Bottleneck, NormalisedConvolution
from common.methods.mamtln.blocks import Fusion, Merge

from .measure import Cost, Row, in_fresh_process, measure, peak_above_idle, row

SIZE = (256, 256, 24)  # patch size of the paper, in voxels
PARTIES = ("literal", "ours")
GIB = 2**30


class LiteralMAMTLN(nn.Module):
    """Apply the formulas literally, with the layers of a :class:`MAMTLN`: same parameters, same outputs.

    Maps are up-sampled, then concatenated, then convolved. Heads run at the size of the input. A mask of two maps is
    computed in two calls. The heads for deep supervision also run in inference.

    Args:
        network: network with all its parts; its ``dense`` has no effect here.
    """

    def __init__(self, network: MAMTLN) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the same outputs as :class:`MAMTLN` in training."""
        net, size = self.network, image.shape[2:]
        p = [project(features) for project, features in zip(net.project, backbone(net.backbone, image))]
        v = va_layer(net.va, p)
        multi_scale = fusion(net.fusion_va, v[::-1])
        a = [asa_module(module, features, multi_scale) for module, features in zip(net.asa, v)]
        refined = fusion(net.fusion_asa, a[::-1])

        s2 = task_attention(net.seg.attention2, [up(torch.cat([a[3], a[2]], 1), a[1].shape[2:]), a[1]])
        s1 = task_attention(net.seg.attention1, [s2, a[0]])
        t2 = task_attention(net.cls.attention2, [net.cls.down[0](a[0]), a[1]])
        t3 = task_attention(net.cls.attention3, [net.cls.down[1](t2), a[2]])
        return {
            "aux_va": net.aux_va(up(multi_scale, size)),
            "aux_asa": net.aux_asa(up(refined, size)),
            "seg": net.seg.head(up(s1, size)),
            "class": net.cls.head(F.adaptive_avg_pool3d(torch.cat([t3, a[3]], 1), 1).flatten(1)),
        }


def backbone(layers: Backbone, image: Tensor) -> list[Tensor]:
    conv, act = layers.stem
    x = layers.pool(act(convolution(conv, image)))
    features = []
    for blocks in layers.layers:
        for block in blocks:
            x = bottleneck(block, x)
        features.append(x)
    return features


def bottleneck(layers: Bottleneck, x: Tensor) -> Tensor:
    y = layers.act(convolution(layers.conv1, x))
    y = layers.act(convolution(layers.conv2, y))
    y = layers.excite(convolution(layers.conv3, y))
    return layers.act(y + (x if isinstance(layers.shortcut, nn.Identity) else convolution(layers.shortcut, x)))


def convolution(layers: NormalisedConvolution, x: Tensor) -> Tensor:
    return layers.norm(layers.conv(x))


def up(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="trilinear", align_corners=False)


def merge(layers: Merge, maps: list[Tensor]) -> Tensor:
    size = maps[-1].shape[2:]
    return layers.act(layers.norm(layers.conv(torch.cat([*(up(m, size) for m in maps[:-1]), maps[-1]], 1))))


def fusion(layers: Fusion, maps: list[Tensor]) -> Tensor:
    return layers.refine(merge(layers.merge, maps))


def weighted_fusion(layer: WeightedFusion, maps: list[Tensor]) -> Tensor:
    """Return ``swish(sum w_i x_i / (sum w_i + 1e-4))`` (eq. 1, 2)."""
    weights = torch.relu(layer.weight)
    return F.silu(sum(w * x for w, x in zip(weights, maps)) / (weights.sum() + 1e-4))


def va_block(layers: VABlock, x: Tensor) -> Tensor:
    return layers.act(layers.fuse(torch.cat([torch.sigmoid(chain(x)) * x for chain in layers.branches], 1)) + x)


def va_layer(layers: VALayer, p: list[Tensor]) -> list[Tensor]:
    """Apply equations 1 and 2, with normalised weights and the projected features."""
    i = [va_block(layers.blocks[3], p[3])]
    for scale in (2, 1, 0):
        above = up(i[0], p[scale].shape[2:])
        i.insert(0, va_block(layers.blocks[scale], weighted_fusion(layers.top_down[scale], [p[scale], above])))
    v = [weighted_fusion(layers.bottom_up[0], [p[0], i[0]])]
    for scale in (1, 2, 3):
        below = layers.down[scale - 1](v[-1]) if scale < 3 else v[-1]
        v.append(weighted_fusion(layers.bottom_up[scale], [p[scale], i[scale], below]))
    return v


def asa_module(layers: ASAModule, v: Tensor, multi_scale: Tensor) -> Tensor:
    """Apply equations 3 to 6."""
    m = multi_scale
    for _ in range(layers.down_steps):
        m = layers.down(m)
    of_v, of_m = layers.reduce[0](v), layers.reduce[1](m)
    weights = torch.softmax(layers.weigh(torch.cat([of_v, of_m], 1)), 1)
    sigma_v, sigma_m = torch.sigmoid(layers.mask(v)), torch.sigmoid(layers.mask(m))
    result = weights[:, :1] * v * sigma_v + weights[:, 1:] * m * sigma_m
    return result if layers.refine is None else fusion(layers.refine, [v, result * m])


def task_attention(layers: TaskAttention, maps: list[Tensor]) -> Tensor:
    """Apply equations 7 and 8."""
    x = merge(layers.merge, maps)
    return layers.refine(x if layers.mask is None else torch.sigmoid(layers.mask(x)) * maps[-1])


def gastric_rows(
    device: torch.device, repeats: int, size: Sequence[int] = SIZE, options: dict[str, Any] | None = None
) -> list[Row]:
    """Return the rows of the table: equality of outputs, then time and memory of inference and of a training step.

    The batch is one image, float32. A fresh process measures each figure, and both networks take turns. Ours runs as in
    the bundle: in its inference form for inference, channels-last.

    Args:
        device: device of the networks.
        repeats: number of processes for each figure.
        size: image size (x, y, z), in voxels.
        options: options of :class:`MAMTLN`.
    """
    options = options or {}
    difference = in_fresh_process(largest_difference, str(device), size, options)
    rows = [row("largest difference between the logits of both / largest logit", difference, "<= 1e-3")]
    for kind, title, time_goal, memory_goal in (
        ("inference", "inference", "<= 0.5", None),
        ("training", "forward + backward", None, "<= 0.7"),
    ):
        costs: dict[str, list[Cost]] = {party: [] for party in PARTIES}
        peaks: dict[str, list[int]] = {party: [] for party in PARTIES}
        for _ in tqdm(range(repeats), desc=title, ncols=100):
            for party in PARTIES:
                peak, cost = in_fresh_process(cost_of, party, kind, str(device), size, options)
                peaks[party].append(peak)
                costs[party].append(cost)
        seconds = {party: median(c.wall if device.type == "cuda" else c.cpu for c in costs[party]) for party in PARTIES}
        memory = {party: median(peaks[party]) for party in PARTIES}
        clock = "wall s" if device.type == "cuda" else "CPU s"
        rows += [row(f"{title}, {party}: {clock}", seconds[party]) for party in PARTIES]
        rows += [row(f"{title}, {party}: peak memory above idle, GiB", memory[party] / GIB) for party in PARTIES]
        equal = bool(rows[0].met)
        rows.append(row(f"{title}, ours / literal: {clock}", seconds["ours"] / seconds["literal"], time_goal, equal))
        ratio = memory["ours"] / memory["literal"]
        rows.append(row(f"{title}, ours / literal: peak memory", ratio, memory_goal, equal))
    return rows


def networks(device: str, options: dict[str, Any]) -> tuple[MAMTLN, LiteralMAMTLN]:
    """Return our network and the literal one, with the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = MAMTLN(**options).to(device)
    return network, LiteralMAMTLN(network)


def largest_difference(device: str, size: Sequence[int], options: dict[str, Any]) -> float:
    """Return the largest difference of the training logits of both networks, relative to the largest logit."""
    ours, literal = networks(device, options)
    image = torch.randn(1, ours.in_channels, *size, device=device)
    with torch.no_grad():
        expected = literal.eval()(image)
        found = ours.eval()(image)
    if found.keys() != expected.keys():
        raise RuntimeError(f"outputs {list(found)} and {list(expected)}")
    return max(float((found[key] - expected[key]).abs().max() / expected[key].abs().max()) for key in expected)


def cost_of(party: str, kind: str, device: str, size: Sequence[int], options: dict[str, Any]) -> tuple[int, Cost]:
    """Return the peak memory in bytes of a first call, and the time of a second one.

    Args:
        party: one of ``PARTIES``.
        kind: "inference" or "training".
        device, size, options: see :func:`gastric_rows`.
    """
    ours, literal = networks(device, options)
    ours.dense = kind == "inference"
    network = ours.to(memory_format=torch.channels_last_3d) if party == "ours" else literal
    network.train(kind == "training")
    image = torch.randn(1, ours.in_channels, *size, device=device)
    if party == "ours":
        image = image.contiguous(memory_format=torch.channels_last_3d)
    call = CALLS[kind](network, image)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        idle = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - idle, measure(call, torch.device(device))
    return peak_above_idle(call), measure(call, torch.device(device))


def inference(network: nn.Module, image: Tensor) -> Callable[[], object]:
    return torch.no_grad()(lambda: network(image))


def training(network: nn.Module, image: Tensor) -> Callable[[], object]:
    def step() -> None:
        network.zero_grad()
        sum(output.mean() for output in network(image).values()).backward()

    return step


CALLS = {"inference": inference, "training": training}
