"""Define fixtures that several tests use."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ComponentLocator

from .trainers import trainer  # noqa: F401  (fixtures)
from .warm_python import WarmPython
from .workflows import BUNDLES as BUNDLES
from .workflows import busy_weights, cohort, config_files, workflow  # noqa: F401

RUNS_A_BUNDLE = {"cohort", "busy_weights", "packed", "made", "command", "warm_python"}  # fixtures
EXPORTS = ("script", "onnx", "compile")  # in names of tests

torch.set_num_threads(1)  # the tests' networks are too small to gain from more


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_search() -> Iterator[None]:
    """Share MONAI's table of its components, for which every parser of a config else searches all modules of MONAI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai.bundle.config_parser.ComponentLocator", functools.cache(ComponentLocator))
        yield


def pytest_unconfigure() -> None:
    """Keep a table of itk, which itk uses once more after its end."""
    table = getattr(sys.modules.get("swig_runtime_data4"), "type_pointer_capsule", None)
    if table is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(table))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow every test that runs a bundle or a benchmark, starts a process, or exports or compiles a network."""
    for item in items:
        runs = RUNS_A_BUNDLE & {*getattr(item, "fixturenames", ())} or "benchmarks" in item.path.parts
        if runs or any(word in item.name.partition("[")[0] for word in EXPORTS):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Let the garbage collector skip what stays until the end: the modules and the list of tests."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Run processes of Python that start with PyTorch and MONAI imported."""
    with WarmPython() as python:
        yield python


@pytest.fixture
def warm_packing(warm_python: WarmPython) -> Iterator[None]:
    """Save packing and verifying the imports of their processes."""
    with warm_python.in_packing():
        yield


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as ``tmp_path/name`` with an affine given or 1.5 x 0.75 x 4 mm; returns the path."""

    def write(name: str, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([1.5, 0.75, 4.0, 1.0]) if affine is None else affine), path)
        return path

    return write
