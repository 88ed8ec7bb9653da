"""Compare MA-MTLN with the authors' release, github.com/infinite-tao/MA-MTLN."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.methods.mamtln import MAMTLN

from .axes import slices_last

REPOSITORY = "infinite-tao/MA-MTLN"
POSITIONS = ("conv", "norm", "act")  # of a convolution with its normalisation, by position in the released Sequential
NORMALISED = {"conv": "conv", "group_norm": "norm", "leaky": "act"}
UNUSED = re.compile(r"w[12]_relu|ASA0\.pool|VAblock(?!(\d)\.(l\1_|PReLU|fusion\1))")
LAYERS = {  # released layer: ours
    "backbone.layer0": "backbone.stem",
    "backbone.layer1.1": "backbone.layers.0",
    "backbone.layer2": "backbone.layers.1",
    "backbone.layer3": "backbone.layers.2",
    "backbone.layer4": "backbone.layers.3",
    "fusion0": "fusion_va",
    "fusion1": "fusion_asa",
    "attention0": "seg.attention2",
    "attention1": "seg.attention1",
    "attention2": "cls.attention2",
    "attention3": "cls.attention3",
    "conv0": "seg.attention2.refine",
    "conv1": "seg.attention1.refine",
    "conv2": "cls.attention2.refine",
    "conv3": "cls.attention3.refine",
    "pool0": "cls.down.0",
    "pool1": "cls.down.1",
    "predict_fuse0": "aux_va",
    "predict_fuse1": "aux_asa",
    "predict": "seg.head",
    "fc": "cls.head",
}


def in_triples(text: str) -> str:
    """Return ``1.norm.weight`` for ``4.weight``: a Sequential of three layers for each convolution."""
    position, _, kind = text.partition(".")
    return f"{int(position) // 3}.{POSITIONS[int(position) % 3]}.{kind}"


def in_fusion(text: str) -> str:
    """Return the name in our ``Fusion`` of a tensor of three convolutions."""
    number, _, rest = in_triples(text).partition(".")
    return f"merge.{rest}" if number == "0" else f"refine.{int(number) - 1}.{rest}"


def in_block(text: str) -> str:
    """Return the name in our ``Bottleneck``."""
    text = re.sub(r"\bbn(\d)", r"conv\1.norm", re.sub(r"\bconv(\d)", r"conv\1.conv", text))
    text = text.replace("downsample.0", "shortcut.conv").replace("downsample.1", "shortcut.norm")
    return text.replace("relu", "act").replace("se.fc", "excite.fc")


def in_visual_attention(text: str) -> str:
    """Return the name in our ``VALayer``, or in the projections before it."""
    layer, _, rest = text.partition(".")
    number = int(re.findall(r"\d", layer)[0]) - 1
    if "down_channel" in layer:
        return f"project.{number}.{in_triples(rest)[2:]}"
    if layer.startswith("pool"):
        kind, _, last = rest.partition(".")
        return f"va.down.{number}.{NORMALISED[kind]}.{last}"
    if layer.startswith("F"):
        return f"va.{'top_down' if layer.endswith('w1') else 'bottom_up'}.{number}.weight"
    rest = re.sub(r"l\d_va_branch(\d)", r"branches.\1", rest).replace("PReLU", "act")
    return f"va.blocks.{number}." + re.sub(r"fusion\d\.0", "fuse", rest)


def in_spatial_attention(text: str) -> str:
    """Return the name in our ``ASAModule``."""
    layer, _, rest = text.partition(".")
    if layer == "attention":
        return "mask." + (f"2.{rest[2:]}" if rest.startswith("6") else in_triples(rest))
    if layer == "refine":
        return f"refine.{in_fusion(rest)}"
    if layer == "weight_levels":
        return f"weigh.{rest}"
    kind, _, last = rest.partition(".")
    place = "down" if layer == "pool" else f"reduce.{layer[-1]}"
    return f"{place}.{NORMALISED[kind]}.{last}"


def our_name(name: str) -> str:
    """Return the name of a tensor of the release in ours."""
    if name.startswith("bivablock1."):
        return in_visual_attention(name.removeprefix("bivablock1."))
    if name.startswith("ASA"):
        return f"asa.{name[3]}.{in_spatial_attention(name[5:])}"
    layer = next(layer for layer in LAYERS if name.startswith(f"{layer}."))
    rest, place = name.removeprefix(f"{layer}."), LAYERS[layer]
    if layer == "backbone.layer0":
        return f"{place}." + {"0": "0.conv", "1": "0.norm", "2": "1"}[rest[0]] + rest[1:]
    if layer.startswith("backbone"):
        return f"{place}.{in_block(rest)}"
    if layer.startswith("fusion"):
        return f"{place}.{in_fusion(rest)}"
    if layer.startswith("attention"):
        return f"{place}." + (f"mask.{rest[2:]}" if rest.startswith("3") else f"merge.{in_triples(rest)[2:]}")
    if layer.startswith("conv"):
        return f"{place}.{in_triples(rest)[2:]}"
    if layer.startswith("pool"):
        kind, _, last = rest.partition(".")
        return f"{place}.{NORMALISED[kind]}.{last}"
    return f"{place}.{rest}"


@pytest.mark.filterwarnings("ignore")  # the release calls deprecated functions of PyTorch
def test_mamtln_has_the_released_logits(
    release: Callable[[str], Path], randomise: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(release(REPOSITORY) / "MA-MTLN")
    theirs = importlib.import_module("network_architecture.MTLN").MTLN3D().double().eval()
    randomise(theirs)
    ours = MAMTLN(asa_refine=True).double().eval()
    state = theirs.state_dict().items()
    ours.load_state_dict({our_name(name): slices_last(tensor) for name, tensor in state if not UNUSED.search(name)})
    volume = torch.randn(1, 1, 16, 48, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(volume)
        logits = ours(slices_last(volume))
    for name, values in zip(("aux_va", "aux_asa", "seg", "class"), expected):
        torch.testing.assert_close(logits[name], slices_last(values).float(), rtol=1e-5, atol=1e-5)
