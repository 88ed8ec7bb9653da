"""Build the convolution block of MMFNet: convolution, normalisation and activation.

H. Chen et al., "MMFNet", Neurocomputing 394 (2020), arXiv:1812.10033, fig. 3.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .convolution import Conv3d, conv3d


class ConvolutionBlock(nn.Module):
    """Convolve, normalise and activate, as MONAI's ``Convolution`` with ``adn_ordering="NA"`` and without a bias.

    Without gradients, batch normalisation with fixed statistics is a factor of the kernel and a bias.

    Args:
        c_in: int, channels of the input.
        c_out: int, channels of the output.
        norm: str or tuple, normalisation, in MONAI's words.
        act: str or tuple, activation, in MONAI's words.
        kernel_size: int or three ints, odd.
    """

    def __init__(
        self, c_in: int, c_out: int, norm: str | tuple, act: str | tuple, kernel_size: int | tuple[int, int, int] = 3
    ) -> None:
        activation = (act, {"inplace": True}) if act == "relu" else act
        super().__init__()
        self.conv = Conv3d(c_in, c_out, kernel_size, bias=False)
        self.adn = ADN("NA", c_out, act=activation, norm=norm, norm_dim=3)

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.adn(self.conv(x))
        return self.computed(x)

    @torch.jit.ignore
    def computed(self, x: Tensor) -> Tensor:
        """Return the activated map of ``x``."""
        layers = list(self.adn)
        norm = layers[0] if layers else None
        special = torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling()
        if special or not isinstance(norm, nn.BatchNorm3d) or norm.training or norm.running_mean is None:
            return self.adn(self.conv(x))
        assert norm.running_var is not None
        kernel, bias = fuse_conv_bn_weights(
            self.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        x = conv3d(x, kernel, bias)
        for layer in layers[1:]:
            x = layer(x)
        return x
