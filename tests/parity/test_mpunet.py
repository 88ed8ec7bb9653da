"""Compare MPU-Net and its U-Net with the authors' release, github.com/Stefan-Yu404/MP-UNet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from common.methods.mpunet import AdditiveUNet, MPUNet

from .axes import slices_last

REPOSITORY = "Stefan-Yu404/MP-UNet"
UNUSED = ("up1.", "decoder5.", "map5.")  # the release registers them and never calls them
# stage of our decoder for each number of the release; its widest stage comes first
STAGES = {"1": "decoder.0", "2": "decoder.1", "3": "decoder.2", "4": "finest"}
GATES = {"4": "decoder.0", "3": "decoder.1", "2": "decoder.2", "1": "finest"}
GATE = {"Wx": "features", "Wg": "signal", "psi": "psi"}


def our_name(name: str) -> str:
    """Return the name of a tensor of the released MPU-Net in ours."""
    layer, *rest = name.split(".")
    number, tail = layer[-1], ".".join(rest[1:])
    if layer.startswith("encoder"):
        return f"encoder.{int(number) - 1}.body.{tail}"
    if layer.startswith("down"):
        position, kind = tail.split(".")
        return f"down.{int(number) - 1}.body.{int(position) - 1}.{kind}"  # ours has no module for the pooling
    if layer.startswith("decoder"):
        return f"{STAGES[number]}.refine.{tail}"
    if layer.startswith("up"):
        return f"{STAGES[number]}.up.{tail}"
    if layer.startswith("map"):
        return re.sub(r"^0\.", "head.conv." if number == "4" else f"coarse_heads.{int(number) - 1}.conv.", tail)
    if layer.startswith("Att"):
        return f"{GATES[number]}.gate.{GATE[rest[0]]}.{tail}"
    return f"bottom.{tail}"


def our_unet_name(name: str) -> str:
    """Return the name of a tensor of the released U-Net in ours."""
    layer, *rest = name.split(".")
    kind, number = layer[:-1], int(layer[-1]) - 1
    if kind == "map":
        return f"{'head' if number == 3 else f'coarse_heads.{number}'}.conv.{rest[-1]}"
    return f"last.0.{rest[-1]}" if layer == "decoder4" else f"{kind}.{number}.0.{rest[-1]}"


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the released MPU-Net with our names; one convolution makes queries, keys and values."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not name.startswith((*UNUSED, "PCL.attn.3.")):
            ours[our_name(name)] = slices_last(tensor)
    attention = {name.removeprefix("PCL.attn.3."): tensor for name, tensor in state.items()}
    for kind in ("weight", "bias"):
        parts = [attention[f"{part}_conv.{kind}"] for part in ("query", "key", "value")]
        ours[f"bottom.3.projection.{kind}"] = torch.cat(parts)
    return {**ours, "bottom.3.gamma": attention["gamma"]}


@pytest.fixture
def released(release: Callable[[str], Path]) -> Callable[[str], ModuleType]:
    """Return a module of the release's folder ``models``."""

    def module(name: str) -> ModuleType:
        spec = spec_from_file_location(f"released_{name}", release(REPOSITORY) / "models" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        found = module_from_spec(spec)
        spec.loader.exec_module(found)
        return found

    return module


def maps_of(network: nn.Module, volume: Tensor) -> tuple[Tensor, ...]:
    """Return the maps that a released network has in training, without dropout and with running statistics."""
    network.eval()
    network.training, network.dorp_rate = True, 0.0
    return network(volume)


def assert_same_maps(ours: nn.Module, theirs: nn.Module, volume: Tensor, names: tuple[str, ...]) -> None:
    with torch.no_grad():
        expected, maps = maps_of(theirs, volume), ours(slices_last(volume))
    for name, values in zip(names, expected):
        torch.testing.assert_close(maps[name], slices_last(values).float(), rtol=0, atol=1e-5)


def test_mpunet_has_the_released_maps(released: Callable[[str], ModuleType], randomise: Callable) -> None:
    theirs = released("MPUNet").MPUNet().double()
    randomise(theirs)
    ours = MPUNet(elu_alpha="channels").double().eval()
    ours.load_state_dict(our_state(theirs.state_dict()))
    volume = torch.rand(1, 1, 16, 32, 40, dtype=torch.float64) * 2 - 1
    assert_same_maps(ours, theirs, volume, ("aux_8", "aux_4", "aux_2", "seg"))


def test_the_unet_has_the_released_maps(released: Callable[[str], ModuleType], randomise: Callable) -> None:
    theirs = released("UNet").UNet().double()
    randomise(theirs)
    ours = AdditiveUNet().double().eval()
    state = theirs.state_dict().items()
    ours.load_state_dict({our_unet_name(name): slices_last(tensor) for name, tensor in state})
    volume = torch.rand(1, 1, 16, 32, 48, dtype=torch.float64) * 2 - 1
    assert_same_maps(ours, theirs, volume, ("aux_16", "aux_8", "aux_4", "seg"))
