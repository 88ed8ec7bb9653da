"""Run each bundle's real configs in seconds, on a tiny cohort and with what ``methods/<method>/tiny.py`` says."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from common.engines import Stage
from common.files import CLAIM
from common.phantoms import write_cohort
from common.transforms.colour_files import ITK_SNAP, SLICER

from .tiny import TinyBundle

METHODS = Path(__file__).parent / "methods"
FOUND: list[TinyBundle] = [
    import_module(f"{__package__}.methods.{path.parent.name}.tiny").TINY for path in sorted(METHODS.glob("*/tiny.py"))
]
METHOD = {tiny.bundle: tiny for tiny in FOUND}
BUNDLES = sorted(METHOD)
TINY = {tiny.bundle.name: dict(tiny.overlay) for tiny in FOUND}
PHANTOMS = {tiny.bundle.name: tiny.phantom for tiny in FOUND}
BUSY = {tiny.bundle.name: tiny.busy_network for tiny in FOUND}


def config_of(bundle: Path, name: str) -> dict[str, Any]:
    """Return a config of a bundle as its file has it."""
    config: dict[str, Any] = json.loads((bundle / "configs" / f"{name}.json").read_text())
    return config


MODALITIES: dict[Path, list[str]] = {bundle: config_of(bundle, "inference")["modalities"] for bundle in BUNDLES}
# a bundle of one image a case and without a class of the case, for tests of what all bundles have in common
PLAIN = next(b for b in BUNDLES if len(MODALITIES[b]) == 1 and "classes" not in config_of(b, "inference"))
bundles = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)


def results_in(folder: Path) -> set[str]:
    """Return the names of the files of an inference, without its records, table and lock."""
    others = ("_seg.json", ITK_SNAP, SLICER, "_cam.json", "cases.csv", "made_by.json", CLAIM)
    return {path.name for path in folder.iterdir() if not path.name.endswith(others)}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return the folder of a bundle's tiny cohort."""
    written: dict[str, Path] = {}

    def folder(bundle: Path) -> Path:
        if bundle.name not in written:
            written[bundle.name] = tmp_path_factory.mktemp(bundle.name)
            write_cohort(PHANTOMS[bundle.name], written[bundle.name], cases=6)
        return written[bundle.name]

    return folder


def write_tiny_overlay(folder: Path, bundle: Path, *names: str) -> list[str]:
    """Write the tiny overlay of a bundle; return the paths of the named configs and of the overlay."""
    overlay = folder / f"tiny_{bundle.name}.json"
    tiny = dict(TINY[bundle.name])
    if "train" not in names:
        tiny = {k: v for k, v in tiny.items() if not k.startswith(METHOD[bundle].only_in_train)}
    if "ensemble" in names:
        tiny = {k.replace("network_def::", "member::"): v for k, v in tiny.items()}
    overlay.write_text(json.dumps(tiny))
    return [*(str(bundle / "configs" / f"{name}.json") for name in names), str(overlay)]


@pytest.fixture
def config_files(tmp_path: Path) -> Callable[..., list[str]]:
    """Return the paths of the named configs of a bundle and of the tiny overlay."""
    return functools.partial(write_tiny_overlay, tmp_path)


@pytest.fixture
def workflow(
    cohort: Callable, config_files: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ConfigWorkflow]:
    """Build an initialised workflow of the real configs on the tiny cohort, in a foreign working directory."""
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


@pytest.fixture
def busy_weights(tmp_path: Path) -> Callable[[Path], Path]:
    """Write weights of a bundle that give label maps with every class, neither empty nor full; return their folder."""

    def folder(bundle: Path) -> Path:
        (tmp_path / "models").mkdir()
        torch.save(BUSY[bundle.name]().state_dict(), tmp_path / "models" / "model.pt")
        return tmp_path / "models"

    return folder


def parser_of(bundle: Path, *names: str) -> ConfigParser:
    """Read the named configs of a bundle, merged."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in names])
    return parser


def overlay(bundle: Path, name: str) -> str:
    """Return an overlay of a bundle with its folder, ``ablations`` or ``tasks``."""
    (file,) = (file for file in (bundle / "configs").glob(f"*/{name}.json") if file.parent.name != "rivals")
    return f"{file.parent.name}/{name}"


def rates_of(stage: Stage, epochs: int) -> list[float]:
    """Return the learning rates of the first parameter group in the first epochs of a stage."""
    optimizer, scheduler = stage.start_optimizer()
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def mask_of(path: Path) -> np.ndarray:
    """Return where a label map is foreground, which is a part of the volume."""
    mask = np.asarray(nib.load(path).dataobj) > 0
    assert 0.01 < mask.mean() < 0.99
    return mask


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights ``model.pt`` of a folder."""
    state: dict[str, torch.Tensor] = torch.load(folder / "model.pt", weights_only=True)
    return state


def assert_class_maps(folder: Path, labels: Path, names: list[str]) -> None:
    """Check that the folder holds the class activation maps of these cases alone, on the grids of their labels."""
    maps = sorted(folder.glob("*_cam.nii.gz"))
    assert [path.name.replace("_cam", "") for path in maps] == names
    for path, name in zip(maps, names):
        heat, label = nib.load(path), nib.load(labels / name)
        assert heat.shape == label.shape and heat.get_data_dtype() == np.float32
        np.testing.assert_allclose(heat.affine, label.affine, atol=1e-5)
        values = np.asarray(heat.dataobj)
        assert 0 <= values.min() < values.max() <= 1


def assert_label_maps(folder: Path, labels: Path, names: list[str], values: set[int]) -> None:
    """Check that the folder holds the label maps of these cases alone, on the grids of their labels."""
    written = sorted(folder.glob("*.nii.gz"))
    assert [file.name.replace("_seg", "") for file in written] == names
    for file, name in zip(written, names):
        image, label = nib.load(file), nib.load(labels / name)
        assert image.get_data_dtype() == np.uint8
        assert image.shape == label.shape
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-5)
        assert set(np.unique(image.dataobj)) <= values
