"""Give tests packed bundles as their receivers use them, commands in processes, and workflows of Python programs."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from monai.bundle import ConfigWorkflow, create_workflow

from common.logs import LOG_FILE

from ..conftest import BUNDLES
from ..warm_python import WarmPython
from .commands import bundle_run, command, warm_command, weights  # noqa: F401  (fixtures)
from .packed import pack_tiny


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Callable[[Path], Path]:
    """Return a function that packs a bundle with a narrow network and returns the folder of its package.

    All processes of pytest-xdist share the packages, so no test may change them.
    """
    folder = tmp_path_factory.getbasetemp()
    dist = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "packed" / "dist"
    dist.mkdir(parents=True, exist_ok=True)

    @functools.cache
    def pack(bundle: Path) -> Path:
        package = dist / bundle.name
        with FileLock(dist.parent / f"{bundle.name}.lock"):
            if not package.exists():
                with warm_python.in_packing():
                    pack_tiny(bundle, dist, {})
        return package

    return pack


@pytest.fixture(scope="session")
def made(packed: Callable[[Path], Path]) -> Path:
    """Pack all bundles; return their folder."""
    for bundle in BUNDLES:  # one by one: Python 3.11.7 may fail if two threads parse code at once
        packed(bundle)
    return packed(BUNDLES[0]).parent


@pytest.fixture
def stranger(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Copy a bundle's package, and hide this repository from the process and its working directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "common", None)
    yield lambda bundle: Path(shutil.copytree(made / bundle.name, tmp_path / "unpacked" / bundle.name))
    for handler in [h for h in logging.getLogger().handlers if h.get_name() == LOG_FILE]:
        logging.getLogger().removeHandler(handler)
        handler.close()
    for name in [name for name in sys.modules if re.match(r"\w+_v\d+_\d+_\d+\b", name)]:
        del sys.modules[name]


@pytest.fixture(params=BUNDLES, ids=lambda bundle: bundle.name)
def package(request: pytest.FixtureRequest, stranger: Callable[[Path], Path]) -> Path:
    return stranger(request.param)


@pytest.fixture
def create(
    cohort: Callable, config_files: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ConfigWorkflow]:
    """Call MONAI's ``create_workflow`` with the named configs of a bundle on its tiny cohort."""
    monkeypatch.chdir(tmp_path)

    def make(bundle: Path, *names: str, **override: Any) -> ConfigWorkflow:
        options = {
            "bundle_root": str(bundle),
            "dataset_dir": str(cohort(bundle)),
            "ckpt_dir": str(tmp_path / "models"),
            "output_dir": str(tmp_path / "out"),
            "device": torch.device("cpu"),
            "meta_file": str(bundle / "configs" / "metadata.json"),
        }
        return create_workflow(
            config_file=config_files(bundle, *names),
            workflow_type="infer" if names[0] == "inference" else "train",
            logging_file=False,
            **{**options, **override},
        )

    return make
