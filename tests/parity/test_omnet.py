"""Compare OM-Net with the network descriptions of the authors' release, github.com/chenhong-zhou/OM-Net.

The release has no weights and no code of its three own layers, which the paper's equations 5 to 8 define.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.methods.omnet import OMNet

from .axes import slices_last
from .prototxt import Layer, compute, convolution_shape, read_layers

REPOSITORY = "chenhong-zhou/OM-Net"
GUIDED = {"tumour": ("score_core_tumor", "score_core_fei_tumor"), "enhancing": ("score_enh_core", "score_enh_fei_core")}
MERGED = {"tumour": "score_core_final", "enhancing": "score_enh_final"}


def random_weights(layers: list[Layer]) -> dict[str, list[Tensor]]:
    """Return random weights of every layer that has weights."""
    weights: dict[str, list[Tensor]] = {}
    channels = {"data_all": 4}  # by map
    for layer in layers:
        kind, name = layer["type"][0], layer["name"][0]
        if kind == "Input":
            continue
        c = channels[layer["bottom"][1 if kind == "Axpy3D" else 0]]  # the first map of Axpy3D is a factor
        if kind in ("Convolution3D", "Deconvolution3D"):
            shape = convolution_shape(layer, c)
            c = int(layer["convolution3d_param"][0]["num_output"][0])
            weights[name] = [torch.randn(shape) * (2 / (shape[1] * shape[2] ** 3)) ** 0.5, torch.rand(c)]
        elif kind in ("BatchNorm", "Scale"):
            weights[name] = [torch.rand(c) + 0.5, torch.rand(c) + 0.5]
        channels.update(dict.fromkeys(layer["top"], c))
    return {name: [values.double() for values in of_layer] for name, of_layer in weights.items()}


def fill(module: nn.Module, **tensors: Tensor) -> None:
    """Write tensors into a module, which must have the same shapes."""
    for name, tensor in tensors.items():
        target = getattr(module, name)
        assert target.shape == tensor.shape, (name, target.shape, tensor.shape)
        target.data.copy_(tensor)


def carry_over(layers: list[Layer], weights: dict[str, list[Tensor]], network: OMNet) -> None:
    """Write the weights of the release into our network: both have the same convolutions in the same order."""
    guided = {name for names in GUIDED.values() for name in names} | {*MERGED.values()}
    theirs = [name for name in weights if name not in guided]
    leaves = (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d)
    ours = [
        m for path, m in network.named_modules() if isinstance(m, leaves) and not path.endswith(("scores", "merge"))
    ]
    for module in ours:
        if isinstance(module, nn.BatchNorm3d):
            (mean, variance), (scale, shift) = weights[theirs.pop(0)], weights[theirs.pop(0)]
            fill(module, running_mean=mean, running_var=variance, weight=scale, bias=shift)
        else:
            kernel, bias = weights[theirs.pop(0)]
            fill(module, weight=slices_last(kernel), bias=bias)
    assert not theirs
    for task, names in GUIDED.items():
        if guided & {*weights}:
            kernels, biases = zip(*(weights[name] for name in names))
            fill(network.heads[task].scores, weight=torch.cat(kernels), bias=torch.cat(biases))
            fill(network.heads[task].merge, weight=weights[MERGED[task]][0], bias=weights[MERGED[task]][1])


@pytest.mark.parametrize(
    ("file", "attention"), [("OM_Net_deploy.prototxt", None), ("OM_Net_CGA_deploy.prototxt", "cga")]
)
def test_omnet_has_the_released_probabilities(release: Callable[[str], Path], file: str, attention: str | None) -> None:
    layers = read_layers((release(REPOSITORY) / file).read_text())
    weights = random_weights(layers)
    network = OMNet(attention=attention, dense=True).double().eval()
    carry_over(layers, weights, network)
    volume = torch.randn(1, 4, 8, 16, 24, dtype=torch.float64)
    inputs = {
        top: torch.zeros(1, dtype=torch.float64)
        for layer in layers
        if layer["type"] == ["Input"]
        for top in layer["top"]
    }
    with torch.no_grad():
        maps = compute(layers, {**inputs, "data_all": volume}, weights)
        probabilities = network(slices_last(volume))
    expected = slices_last(torch.cat([maps[f"prob{task}"] for task in (1, 2, 3)], 1))
    torch.testing.assert_close(probabilities, expected.float(), rtol=0, atol=1e-5)
