"""A tiny cohort and overlays that make each bundle's real configs run in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from common.files import CLAIM
from common.methods.mamtln import MAMTLN, StomachPhantom
from common.methods.mmfnet import HeadPhantom, MMFNet
from common.methods.mpunet import LiverPhantom, MPUNet
from common.methods.multirnet import LungPhantom, MultiRNet
from common.methods.omnet import BrainPhantom, OMNet
from common.phantoms import write_cohort

BUNDLES = Path(__file__).parents[1] / "bundles"
MMFNET = BUNDLES / "nasopharynx_mri_mmfnet"
OMNET = BUNDLES / "brain_mri_omnet"
MAMTLN_CT = BUNDLES / "stomach_ct_mamtln"
MPUNET = BUNDLES / "liver_ct_mpunet"
MULTIRNET = BUNDLES / "lung_ct_multirnet"

NARROW_MAMTLN: dict[str, Any] = {
    "width": 8,
    "planes": [8, 8, 8, 8],
    "blocks": [1, 1, 1, 1],
    "cardinality": 2,
    "norm_groups": 4,
}
NARROW_MULTIRNET: dict[str, Any] = {"channels": [2, 4], "classifier_channels": [2, 4], "kernel_size": 3}

TINY = {
    MMFNET.name: {
        "network_def::channels": [2, 4],
        "network_def::reduction": 2,
        "single_modality_network::channels": [2, 4],
        "spacing": [6.0, 6.0, -1],
        "roi_size": [16, 16, 8],
        "window_step": 4,
        "margin": [3, 3, 2],
        "max_offset": [2, 2, 2],
        "max_epochs": 2,
        "warm_up_epochs": 1,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    OMNET.name: {
        "network_def::channels": [2, 4],
        "network_def::bn_momentum": 0.1,
        "spacing": [4.0, 4.0, 4.0],
        "roi_size": [16, 16, 8],
        "keep": [8, 8, 4],
        "curriculum": [1, 1, 2],
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    MAMTLN_CT.name: {
        **{f"network_def::{key}": value for key, value in NARROW_MAMTLN.items()},
        "intensity": {"low": -60.0, "high": 180.0, "mean": 80.0, "sd": 50.0},
        "spacing": [10.0, 10.0, -1],
        "roi_size": [16, 16, 8],
        "crop_size": [18, 18, 8],
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    MPUNET.name: {
        "network_def::channels": [2, 2, 4, 4, 8],
        "in_plane": 32,
        "slice_thickness": 10.0,
        "slab_margin": 2,
        "roi_size": [32, 32, 8],
        "slice_step": 4,
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
    MULTIRNET.name: {
        **{f"network_def::{key}": value for key, value in NARROW_MULTIRNET.items()},
        "spacing": [8.0, 8.0, 9.0],
        "roi_size": [16, 16, 8],
        "jitter": [3, 3, 2],
        "max_epochs": 2,
        "learning_rate": 0.01,
        "updates_per_epoch": 2,
        "batch_size": 2,
    },
}
PHANTOMS = {
    MMFNET.name: HeadPhantom(size=(28, 32, 16), spacing=(6.0, 5.8, 5.5)),
    OMNET.name: BrainPhantom(size=(40, 45, 35), spacing=(4.0, 4.0, 4.0)),
    MAMTLN_CT.name: StomachPhantom(size=(32, 26, 13), spacing=(9.0, 8.8, 8.0)),
    MPUNET.name: LiverPhantom(size=(36, 30, 24), spacing=(10.0, 10.4, 9.7)),
    MULTIRNET.name: LungPhantom(size=(34, 28, 19), spacing=(8.0, 8.2, 9.0)),
}


def results_in(folder: Path) -> set[str]:
    """Return the names of the files of an inference, without the records beside its results and the lock."""
    others = ("_seg.json", "_cam.json", CLAIM)
    return {path.name for path in folder.iterdir() if not path.name.endswith(others)}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The folder of a bundle's tiny cohort."""
    written: dict[str, Path] = {}

    def folder(bundle: Path) -> Path:
        if bundle.name not in written:
            written[bundle.name] = tmp_path_factory.mktemp(bundle.name)
            write_cohort(PHANTOMS[bundle.name], written[bundle.name], cases=6)
        return written[bundle.name]

    return folder


@pytest.fixture
def config_files(tmp_path: Path) -> Callable[..., list[str]]:
    """The named configs of a bundle and the tiny overlay, as paths."""

    def files(bundle: Path, *names: str) -> list[str]:
        overlay = tmp_path / "tiny.json"
        tiny = dict(TINY[bundle.name])
        if "train" not in names:
            tiny = {k: v for k, v in tiny.items() if not k.startswith("single_modality_network")}
        if "ensemble" in names:
            tiny = {k.replace("network_def::", "member::"): v for k, v in tiny.items()}
        overlay.write_text(json.dumps(tiny))
        return [*(str(bundle / "configs" / f"{name}.json") for name in names), str(overlay)]

    return files


@pytest.fixture
def workflow(
    cohort: Callable, config_files: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ConfigWorkflow]:
    """An initialised workflow of the real configs on the tiny cohort, in a foreign working directory."""
    monkeypatch.chdir(tmp_path)

    def make(bundle: Path, *names: str, tiny: bool = True, **override: Any) -> ConfigWorkflow:
        own = [str(bundle / "configs" / f"{name}.json") for name in names]
        flow = ConfigWorkflow(
            config_file=config_files(bundle, *names) if tiny else own,
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="infer" if names[0] == "inference" else "train",
            **{
                "bundle_root": str(bundle),
                "dataset_dir": str(cohort(bundle)),
                "ckpt_dir": str(tmp_path / "models"),
                "output_dir": str(tmp_path / "out"),
                **override,
            },
        )
        flow.initialize()
        return flow

    return make


def _busy_mmfnet() -> torch.nn.Module:
    network = MMFNet(channels=(2, 4), reduction=2)
    torch.nn.init.normal_(network.head.weight, std=3)
    network.head.bias.data.fill_(2.0)
    return network


def sure_of_parts(build: type[torch.nn.Module] = OMNet, seed: int = 0) -> torch.nn.Module:
    """A network of OM-Net's tasks, narrow, with classifiers that are sure of what they say."""
    torch.manual_seed(seed)
    network = build(channels=(2, 4))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (1, 1, 1):
            torch.nn.init.normal_(module.weight, std=3)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias)
    return network


def _busy_mamtln() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MAMTLN(**NARROW_MAMTLN)
    for name, parameter in network.named_parameters():
        if name.endswith("head.weight"):
            torch.nn.init.normal_(parameter, std=9)
    return network


def _busy_mpunet() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MPUNet(channels=(2, 2, 4, 4, 8))
    for parameter in network.parameters():
        if parameter.shape[0] == 2 and parameter.dim() == 5 and parameter.shape[2:] == (1, 1, 1):
            torch.nn.init.normal_(parameter, std=9)
    return network


def _busy_multirnet() -> torch.nn.Module:
    torch.manual_seed(0)
    network = MultiRNet(**NARROW_MULTIRNET)
    for name, parameter in network.named_parameters():
        if parameter.shape[0] == 1 and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=3)
    return network


BUSY = {
    MMFNET.name: _busy_mmfnet,
    OMNET.name: sure_of_parts,
    MAMTLN_CT.name: _busy_mamtln,
    MPUNET.name: _busy_mpunet,
    MULTIRNET.name: _busy_multirnet,
}


@pytest.fixture
def busy_weights(tmp_path: Path) -> Callable[[Path], Path]:
    """The folder of a bundle's weights whose label maps are neither empty nor full and have every class."""

    def folder(bundle: Path) -> Path:
        (tmp_path / "models").mkdir()
        torch.save(BUSY[bundle.name]().state_dict(), tmp_path / "models" / "model.pt")
        return tmp_path / "models"

    return folder


@pytest.fixture
def busy(busy_weights: Callable) -> Path:
    """Those of MMFNet."""
    return busy_weights(MMFNET)


def parser_of(bundle: Path, *names: str) -> ConfigParser:
    """The named configs of a bundle, merged."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in names])
    return parser


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def assert_class_maps(folder: Path, labels: Path, names: list[str]) -> None:
    """The folder holds the class activation maps of these cases and no other, on the grids of their labels."""
    maps = sorted(folder.glob("*_cam.nii.gz"))
    assert [path.name.replace("_cam", "") for path in maps] == names
    for path, name in zip(maps, names):
        heat, label = nib.load(path), nib.load(labels / name)
        assert heat.shape == label.shape and heat.get_data_dtype() == np.float32
        np.testing.assert_allclose(heat.affine, label.affine, atol=1e-5)
        values = np.asarray(heat.dataobj)
        assert 0 <= values.min() < values.max() <= 1


def assert_label_maps(folder: Path, labels: Path, names: list[str], values: set[int]) -> None:
    """The folder holds the label maps of these cases and no other, on the grids of their labels."""
    written = sorted(folder.glob("*.nii.gz"))
    assert [file.name.replace("_seg", "") for file in written] == names
    for file, name in zip(written, names):
        image, label = nib.load(file), nib.load(labels / name)
        assert image.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-5)
        assert set(np.unique(image.dataobj)) <= values
