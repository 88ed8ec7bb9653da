"""Compute a PReLU fast on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PART = 2**17  # elements that are computed at once


class PReLU(nn.PReLU):
    """Compute ``max(x, 0) + slope * min(x, 0)`` as :class:`torch.nn.PReLU` does, with the same weights.

    PyTorch's kernel reads the slopes voxel by voxel if the channels lie last in memory, and its gradient computes one
    element at a time. In a narrow network both then take longer than the convolutions. Here the channels of a row of
    voxels make one long vector, with the slopes repeated. The values and the gradient of ``x`` are the same to the
    bit; the gradient of the slopes is summed in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the shape of ``x``, ``(B, C, x, y, z)``; under autocast, in its type."""
        if torch.jit.is_scripting():
            return F.prelu(x, self.weight)
        return prelu(x, self.weight)


@torch.jit.ignore
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """Return the PReLU of a map ``(B, C, x, y, z)`` with one slope, or with one for each channel."""
    special = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if special or x.device.type != "cpu" or x.ndim != 5 or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return F.prelu(x, weight)
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    if torch.is_grad_enabled():
        return _ChannelsLastPReLU.apply(x, weight)
    rows = F.prelu(_rows(x), _slopes(x, weight))
    return rows.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


class _ChannelsLastPReLU(torch.autograd.Function):
    """Compute parts that stay in the cache, since temporary maps of full size cost more than the arithmetic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        x = x.as_subclass(Tensor)  # PyTorch takes each result of a MetaTensor for a view
        y, slopes = torch.empty_like(x), _slopes(x, weight)
        for part, rows in zip(_parts(y), _parts(x)):
            part.copy_(F.prelu(rows, slopes))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x, slopes = torch.empty_like(x), _slopes(x, weight)
        of_slopes = torch.zeros(slopes.shape)
        for part, rows, g in zip(_parts(of_x), _parts(x), _parts(gradient)):
            positive = torch.ops.aten.threshold_backward(g, rows, 0.0)  # torch.where takes ten times as long
            negative = g - positive
            of_slopes += (negative * rows).sum(0, dtype=torch.float32)
            torch.addcmul(positive, negative, slopes, out=part)
        of_weight = of_slopes.view(-1, x.shape[1]).sum(0)
        if weight.numel() == 1:
            of_weight = of_weight.sum(0, keepdim=True)
        return of_x, of_weight.to(weight.dtype)


def _rows(x: Tensor) -> Tensor:
    """Return a map ``(B, C, x, y, z)`` as rows ``(n, z C)``; a map in channels_last_3d is not copied."""
    return x.movedim(1, -1).reshape(-1, x.shape[4] * x.shape[1])


def _parts(x: Tensor) -> Sequence[Tensor]:
    """Return the rows of a map, some at a time."""
    rows = _rows(x)
    return rows.split(max(1, PART // rows.shape[1]))


def _slopes(x: Tensor, weight: Tensor) -> Tensor:
    """Return the slopes of a row."""
    return weight.to(x.dtype).expand(x.shape[1]).repeat(x.shape[4])
