"""Read a network description of Caffe, and compute it with PyTorch: the layers that OM-Net's release uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = dict[str, list[Any]]
EPSILON = 1e-5  # of Caffe's BatchNorm


def read_layers(text: str) -> list[Layer]:
    """Return the layers of the test phase; a layer has a list of values for each key."""
    tokens = iter(re.findall(r'"[^"]*"|[\w.+-]+|[{}]', re.sub(r"#.*", "", text)))
    layers = _message(tokens)["layer"]
    return [layer for layer in layers if "TRAIN" not in str(layer.get("include"))]


def _message(tokens: Iterator[str]) -> dict[str, list[Any]]:
    content: dict[str, list[Any]] = {}
    for key in tokens:
        if key == "}":
            break
        value = next(tokens)
        content.setdefault(key, []).append(_message(tokens) if value == "{" else value.strip('"'))
    return content


def numbers(layer: Layer, part: str, *keys: str) -> list[int]:
    """Return one number for each key of a part of a layer, such as ``pad`` of ``convolution3d_param``."""
    return [int(layer[part][0][key][0]) for key in keys]


def convolution_shape(layer: Layer, c_in: int) -> tuple[int, ...]:
    """Return the shape of the weights of a convolution or, with the first two axes exchanged, a transposed one."""
    c_out, kernel, depth = numbers(layer, "convolution3d_param", "num_output", "kernel_size", "kernel_depth")
    first = (c_in, c_out) if layer["type"][0].startswith("Deconvolution") else (c_out, c_in)
    return (*first, depth, kernel, kernel)


def compute(
    layers: list[Layer], inputs: Mapping[str, Tensor], weights: Mapping[str, list[Tensor]]
) -> dict[str, Tensor]:
    """Return all maps of a network by name. A layer overwrites a map that it has as input and output.

    Args:
        layers: from :func:`read_layers`.
        inputs: maps ``(B, C, D, H, W)`` of the layers of type Input.
        weights: for each layer with weights: kernel and bias; mean and variance; or scale and shift.
    """
    maps = dict(inputs)
    for layer in layers:
        if layer["type"][0] == "Input":
            continue
        results = _results(layer, [maps[name] for name in layer["bottom"]], weights.get(layer["name"][0], []))
        maps.update(zip(layer["top"], results, strict=True))
    return maps


def _results(layer: Layer, x: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    kind = layer["type"][0]
    if kind in ("Convolution3D", "Deconvolution3D"):
        pad, depth_pad, stride, depth_stride = numbers(
            layer, "convolution3d_param", "pad", "temporal_pad", "stride", "temporal_stride"
        )
        convolve = F.conv3d if kind == "Convolution3D" else F.conv_transpose3d
        return [convolve(x[0], *weights, stride=(depth_stride, stride, stride), padding=(depth_pad, pad, pad))]
    if kind in ("BatchNorm", "Scale"):
        first, second = (values[:, None, None, None] for values in weights)
        return [(x[0] - first) / torch.sqrt(second + EPSILON) if kind == "BatchNorm" else x[0] * first + second]
    if kind == "ReLU":
        return [x[0].relu()]
    if kind == "Dropout":
        return x
    if kind == "Pooling3D":
        size, depth = numbers(layer, "pooling3d_param", "kernel_size", "kernel_depth")
        return [F.max_pool3d(x[0], (depth, size, size))]
    if kind == "Eltwise":
        product = "PROD" in str(layer.get("eltwise_param"))
        return [torch.stack(x).prod(0) if product else torch.stack(x).sum(0)]
    if kind == "Softmax":
        return [x[0].softmax(1)]
    if kind == "Slice":
        points = [int(point) for point in layer["slice_param"][0]["slice_point"]]
        return [*x[0].tensor_split(points, 1)]
    if kind == "Concat":
        return [torch.cat(x, 1)]
    if kind == "Reshape":
        shape = [int(size) for size in layer["reshape_param"][0]["shape"][0]["dim"]]
        return [x[0].reshape([size or x[0].shape[axis] for axis, size in enumerate(shape)])]
    if kind == "Tile":
        return [torch.cat(numbers(layer, "tile_param", "tiles")[0] * [x[0]], 1)]
    if kind == "MatrixMultiplicationYt":
        return [x[0] @ x[1].transpose(1, 2)]
    if kind == "L1MatrixNormalize":
        return [x[0] / x[0].abs().sum(2, keepdim=True)]
    if kind == "Axpy3D":
        return [x[0] * x[1] + x[2]]
    raise ValueError(f"layer {layer['name'][0]}: unknown type {kind}")
