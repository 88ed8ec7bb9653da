"""Wrap a network of MONAI so that it keeps the contract of a bundle's network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import DynUNet, SegResNet, UNet
from torch import Tensor, nn

from ..errors import InputError
from ..layers import TwoForms
from ..layers.checks import check_channels, check_option, check_sizes
from .dynunet import SupervisedDynUNet

ACTIVATIONS = ("softmax", "sigmoid", "none")


class Wrapper(nn.Module):
    """Hold a network of MONAI and what a bundle asks of its own network."""

    def wrap(self, network: UNet | SegResNet | DynUNet, activation: str) -> None:
        """Take over a network; arguments and errors as for :class:`Rival`."""
        check_network(network, activation)
        self.in_channels = int(network.in_channels)
        self.divisors = divisors_of(network)
        self.encoder_modules: Sequence[str] = encoder_modules_of(network)
        self.activation = activation
        self.network: Any = SupervisedDynUNet(network) if isinstance(network, DynUNet) else network

    def check_image(self, image: Tensor) -> None:
        """Raise a ``ValueError`` that says what does not fit the network and what would."""
        check_channels(image, self.in_channels)
        check_sizes(image, self.divisors)


class Rival(Wrapper, TwoForms):
    """Use MONAI's UNet, SegResNet or DynUNet as a segmentation network of two forms.

    Args:
        network: the network of MONAI, with its numbers of channels and classes.
        activation: what makes the inference form of the network's logits: ``"softmax"`` over the channels,
            ``"sigmoid"`` or ``"none"``. Take what the bundle's own network returns.
        logits_in_training: bool, True if the loss of the bundle takes logits; the training form then has no activation.
        dense: bool, True for the inference form, see :class:`common.layers.TwoForms`.

    Raises:
        ValueError: another network or activation, or softmax of a single channel.
    """

    __constants__: Sequence[str] = ("activation", "dense", "logits_in_training", "supervised")

    def __init__(
        self,
        network: UNet | SegResNet | DynUNet,
        *,
        activation: str = "softmax",
        logits_in_training: bool = False,
        dense: bool = False,
    ) -> None:
        super().__init__(dense)
        self.wrap(network, activation)
        self.logits_in_training = logits_in_training
        self.supervised = isinstance(network, DynUNet)

    def forward(self, image: Tensor) -> Tensor | dict[str, Tensor]:
        """Predict the segmentation.

        Args:
            image: ``(B, in_channels, x, y, z)``; the strides of the network divide every spatial size.

        Returns:
            Maps ``(B, out_channels, x, y, z)`` in float32. For training: ``seg``, and with deep supervision ``aux_1``,
            ``aux_2`` and so on, the maps of the next coarser levels at full size. For inference: the tensor of ``seg``.

        Raises:
            ValueError: another number of channels, or a spatial size that does not divide.
        """
        self.check_image(image)
        if self.dense:
            return activated(self.network(image), self.activation)
        activation = "none" if self.logits_in_training else self.activation
        outputs: dict[str, Tensor] = {}
        if self.supervised:
            for level, logits in enumerate(self.network.every_scale(image)):
                outputs["seg" if level == 0 else "aux_" + str(level)] = activated(logits, activation)
        else:
            outputs["seg"] = activated(self.network(image), activation)
        return outputs


class SingleFormRival(Wrapper):
    """Use MONAI's UNet, SegResNet or DynUNet where a bundle's network returns one tensor in training too.

    Args:
        network, activation: as for :class:`Rival`. Heads of deep supervision are left out.

    Raises:
        ValueError: as for :class:`Rival`.
    """

    __constants__: Sequence[str] = ("activation",)

    def __init__(self, network: UNet | SegResNet | DynUNet, *, activation: str = "sigmoid") -> None:
        super().__init__()
        if isinstance(network, DynUNet):
            network.deep_supervision = False
        self.wrap(network, activation)

    def forward(self, image: Tensor) -> Tensor:
        """Return the map ``(B, out_channels, x, y, z)`` in float32; image and errors as for :class:`Rival`."""
        self.check_image(image)
        return activated(self.network(image), self.activation)


def activated(logits: Tensor, activation: str) -> Tensor:
    """Return the activation of logits ``(B, C, x, y, z)``, in float32."""
    logits = logits.float()
    if activation == "softmax":
        return torch.softmax(logits, 1)
    if activation == "sigmoid":
        return torch.sigmoid(logits)
    return logits


def check_network(network: nn.Module, activation: str) -> None:
    """Raise a ``ValueError`` unless a network is one of the three for volumes, and the activation fits it."""
    check_option("activation", activation, ACTIVATIONS)
    if not isinstance(network, (UNet, SegResNet, DynUNet)):
        raise InputError(f"network: {type(network).__name__}, expected UNet, SegResNet or DynUNet of MONAI")
    if (dimensions := network.dimensions if isinstance(network, UNet) else network.spatial_dims) != 3:
        raise InputError(f"network: {type(network).__name__} of {dimensions} dimensions, expected 3")
    if activation == "softmax" and out_channels_of(network) == 1:
        raise InputError(
            "activation='softmax' of 1 output channel is 1 everywhere; give the network a channel for the background "
            "too, or activation='sigmoid'"
        )


def out_channels_of(network: UNet | SegResNet | DynUNet) -> int:
    """Return the number of channels of a network's output."""
    if isinstance(network, SegResNet):  # it does not keep the number
        return [layer.out_channels for layer in network.conv_final.modules() if isinstance(layer, nn.Conv3d)][-1]
    return int(network.out_channels)


def divisors_of(network: UNet | SegResNet | DynUNet) -> list[int]:
    """Return for each axis the number that must divide its size."""
    if isinstance(network, SegResNet):
        return [2 ** (len(network.blocks_down) - 1)] * 3
    strides = [[step] * 3 if isinstance(step, int) else list(step) for step in network.strides]
    return [math.prod(steps) for steps in zip(*strides)]


def encoder_modules_of(network: UNet | SegResNet | DynUNet) -> tuple[str, ...]:
    """Return the names of the encoder's modules in a wrapper, the coarsest level included."""
    if isinstance(network, SegResNet):
        return ("network.convInit", "network.down_layers")
    if isinstance(network, DynUNet):
        return ("network.input_block", "network.downsamples", "network.bottleneck")
    names, name, block = [], "network.model", network.model
    while isinstance(block, nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection):
        names.append(f"{name}.0")
        name, block = f"{name}.1.submodule", block[1].submodule
    return (*names, name)
