"""Compute layers by their formulas, for comparison with the networks of several methods."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def naive_convolution(x: Tensor, conv: nn.Module) -> Tensor:
    """Sum the shifted, zero-padded input times the weight over the offsets of the kernel, and add the bias if any."""
    *_, k0, k1, k2 = conv.weight.shape
    padded = nn.functional.pad(x, (k2 // 2, k2 // 2, k1 // 2, k1 // 2, k0 // 2, k0 // 2))
    size_x, size_y, size_z = x.shape[2:]
    total = torch.zeros(x.shape[0], conv.weight.shape[0], *x.shape[2:])
    for i, j, k in itertools.product(range(k0), range(k1), range(k2)):
        shifted = padded[:, :, i : i + size_x, j : j + size_y, k : k + size_z]
        total += torch.einsum("oc,bcxyz->boxyz", conv.weight[:, :, i, j, k], shifted)
    return total if conv.bias is None else total + conv.bias.view(1, -1, 1, 1, 1)


def naive_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Normalise with the running statistics of a batch normalisation, then scale and shift."""
    mean, var, weight, bias = (
        v.view(1, -1, 1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + norm.eps) ** 0.5 * weight + bias
