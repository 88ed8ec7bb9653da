"""Compute the equations of MultiR-Net as the paper writes them, for comparison with the network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from common.methods.multirnet import MultiRNet

from ..naive import naive_norm
from ..networks import set_trained

MODES = ("shared", "own", "off")


def narrow(**options: object) -> MultiRNet:
    """Build a network of five levels in eval mode, with statistics and slopes as after training."""
    widths = {"channels": (2, 3, 4, 5, 6), "classifier_channels": (2, 3, 4)}
    return trained(MultiRNet(**{**widths, "kernel_size": 3, **options})).eval()


def trained(network: nn.Module) -> nn.Module:
    for m in network.modules():
        if isinstance(m, nn.BatchNorm3d):
            set_trained(m)
        elif isinstance(m, nn.PReLU):
            nn.init.uniform_(m.weight, 0.1, 0.9)
    return network


def outputs_of(module: nn.Module) -> list[Tensor]:
    """Return a list that fills with the outputs of a module."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    return seen


def inputs_of(module: nn.Module) -> list[Tensor]:
    """Return a list that fills with the inputs of a module."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    return seen


def broadcast(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


def naive_prelu(x: Tensor, act: nn.Module) -> Tensor:
    return x.clamp(min=0) + broadcast(act.weight) * x.clamp(max=0)


def naive_unit(x: Tensor, unit: nn.Module) -> Tensor:
    """Apply a convolution without bias that keeps the size, normalisation and PReLU."""
    weight = unit.conv.weight
    return naive_prelu(naive_norm(F.conv3d(x, weight, padding=weight.shape[2] // 2), unit.adn.N), unit.adn.A)
