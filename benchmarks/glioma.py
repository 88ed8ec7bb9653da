"""Compare OM-Net's windows with the paper's, and one pass with the model cascade."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.inferers import Inferer
from torch import Tensor, nn

from common.engines import load_weights
from common.errors import InputError
from common.inferers import WindowInferer
from common.methods.omnet import Cascade, CascadeInferer, CropBraind, FuseTasksd, NormalizeBraind, OMNet

from .measure import Figures, Row, interleaved, row
from .volumes import ensure_brain

BUNDLE = Path(__file__).parents[1] / "bundles" / "brain_mri_omnet"
REGIONS = {"complete": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
PAPER = (20, 20, 5)  # size of the centre that the paper keeps of a window, in voxels
MOVED = (7, 3, 2)  # shift in voxels that shows how much the paper's own windows depend on their positions


def glioma_rows(work: Path, device: torch.device, repeats: int, demo: Path, cascade_demo: Path) -> list[Row]:
    """Return the rows of the table, for the networks that the demos trained.

    Args:
        work: folder that keeps the volume.
        device: device of the networks.
        repeats: number of measurements of each time on the demo's cases. The whole volume takes some minutes and is
            measured once.
        demo, cascade_demo: folders of the demo without and with the overlay of the cascade.

    Raises:
        InputError: a demo was not run.
    """
    config = ConfigParser()
    config.read_config([BUNDLE / "configs" / f"{name}.json" for name in ("train", "evaluate", "demo")])
    config.update({"demo_dir": str(demo), "dataset_dir": str(demo / "data"), "precision": "float32", "device": device})
    steps = config.get_parsed_content("validate::preprocessing")
    cases = [steps(dict(case)) for case in config.get_parsed_content("validate::dataset").data]
    one_pass = _trained(config.get_parsed_content("network_def"), demo, device)
    config.update({"network_def::_target_": "common.methods.omnet.Cascade"})
    cascade = _trained(config.get_parsed_content("network_def"), cascade_demo, device)
    return [
        *_windows_rows(one_pass, config.get_parsed_content("inferer"), cases, device),
        *_whole_volume_rows(one_pass, work, device),
        *_cascade_rows(one_pass, cascade, config["keep"], cases, device, repeats),
    ]


def _trained(network: nn.Module, demo: Path, device: torch.device) -> nn.Module:
    path = demo / "models" / "model.pt"
    if not path.exists():
        raise InputError(f"{path}: no such file; run the demo first, see docs/reference/results.md")
    load_weights(network, path)
    return network.eval().to(device, memory_format=torch.channels_last_3d)


def _windows(
    keep: tuple[int, int, int] | list[int], kind: Callable[..., Inferer] = WindowInferer, **more: object
) -> Inferer:
    return kind((32, 32, 16), sw_batch_size=8, keep=keep, precision="float32", **more)


def _labels(inferer: Inferer, network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return FuseTasksd("pred")({"pred": inferer(image, network)[0]})["pred"]


def _windows_rows(network: nn.Module, default: Inferer, cases: list[dict], device: torch.device) -> list[Row]:
    """Compare the label maps of the bundle's windows and of the paper's, over all voxels of the demo's test cases.

    The paper's windows with a shift show how much their own label maps depend on the positions.
    """
    paper = _windows(PAPER)
    maps: dict[str, list[Tensor]] = {"ours": [], "paper": [], "moved": [], "truth": []}
    for case in cases:
        image = case["image"].as_tensor()[None].to(device)
        x, y, z = MOVED
        maps["ours"].append(_labels(default, network, image))
        maps["paper"].append(_labels(paper, network, image))
        maps["moved"].append(_labels(paper, network, F.pad(image, (z, 0, y, 0, x, 0)))[:, x:, y:, z:])
        maps["truth"].append(case["label"].as_tensor().to(device))
    pairs = {
        "our windows and the paper's": ("ours", "paper", ">= 0.98"),
        "the paper's windows and the same with a shift": ("moved", "paper", None),
        "our windows and the ground truth": ("ours", "truth", None),
        "the paper's windows and the ground truth": ("paper", "truth", None),
    }
    return [
        row(f"Dice of {title}: {region}", _dice(maps[one], maps[other], classes), goal)
        for title, (one, other, goal) in pairs.items()
        for region, classes in REGIONS.items()
    ]


def _dice(first: list[Tensor], second: list[Tensor], classes: tuple[int, ...]) -> float:
    """Return the Dice of some classes over the voxels of all cases."""
    both = either = 0
    for pair in zip(first, second):
        a, b = (torch.isin(labels.long(), torch.tensor(classes, device=labels.device)) for labels in pair)
        both += int((a & b).sum())
        either += int(a.sum() + b.sum())
    return 2 * both / either


def _whole_volume_rows(network: nn.Module, work: Path, device: torch.device) -> list[Row]:
    """Compare times on 240 x 240 x 155 voxels: the paper's windows cover the volume, ours the brain."""
    image, _ = ensure_brain(work)
    config = ConfigParser()
    config.read_config(BUNDLE / "configs" / "inference.json")
    load = config.get_parsed_content("preprocessing").transforms[:2]
    case = {"image": str(image)}
    for step in load:
        case = step(case)
    case = NormalizeBraind("image")(case)
    whole = case["image"].as_tensor()[None].to(device)
    keep = config["keep"]

    def ours() -> None:
        cropped = CropBraind("image")(case)["image"].as_tensor()[None].to(device)
        _labels(_windows(keep, empty=(0, 0), fill=config["inferer::fill"]), network, cropped)

    calls = {"paper": lambda: _labels(_windows(PAPER), network, whole), "ours": ours}
    figures = Figures(interleaved(calls, 1, device, title="240x240x155", warm=False), device)
    figures.print("240x240x155")
    return figures.ratio(
        "voxels of the scan per second, our windows / the paper's", ("paper", "all"), ("ours", "all"), ">= 8"
    )


def _cascade_rows(
    one_pass: nn.Module, cascade: nn.Module, keep: list[int], cases: list[dict], device: torch.device, repeats: int
) -> list[Row]:
    """Compare one pass with a cascade of three networks, on all windows or only after a finding of the one before."""
    images = [case["image"].as_tensor()[None].to(device) for case in cases]
    parties: Mapping[str, tuple[Inferer, nn.Module]] = {
        "one pass": (_windows(keep, empty=(0, 0)), one_pass),
        "cascade, everywhere": (_windows(keep, CascadeInferer, empty=(0, 0), gated=False), cascade),
        "cascade, gated": (_windows(keep, CascadeInferer, empty=(0, 0)), cascade),
    }

    def run(name: str) -> Callable[[], list[Tensor]]:
        inferer, network = parties[name]
        return lambda: [_labels(inferer, network, image) for image in images]

    figures = Figures(interleaved({name: run(name) for name in parties}, repeats, device), device)
    figures.print("the demo's test cases")
    same = all(map(torch.equal, run("cascade, everywhere")(), run("cascade, gated")()))
    full = [sum(p.numel() for p in network.parameters()) for network in (Cascade(), OMNet())]
    return [
        row("parameters at full size, cascade / one pass", full[0] / full[1]),
        row("label maps of the cascade, gated and everywhere, are equal (1: yes)", float(same), ">= 1"),
        *figures.ratio(
            "time, cascade everywhere / one pass", ("cascade, everywhere", "all"), ("one pass", "all"), None, same
        ),
        *figures.ratio("time, cascade gated / one pass", ("cascade, gated", "all"), ("one pass", "all"), None, same),
    ]
