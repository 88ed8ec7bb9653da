"""Run commands in processes of their own, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..methods.mmfnet.tiny import MMFNET
from ..warm_python import WarmPython


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs ``python -m`` with arguments in an empty folder."""
    return _command(tmp_path, subprocess.run)


@pytest.fixture
def warm_command(tmp_path: Path, warm_python: WarmPython) -> Callable[..., subprocess.CompletedProcess]:
    """Return the function of ``command`` for tests to which the imports of a process do not matter."""
    return _command(tmp_path, warm_python.run)


def _command(folder: Path, run: Callable) -> Callable[..., subprocess.CompletedProcess]:
    (folder / "elsewhere").mkdir()
    return lambda *arguments: run(
        [sys.executable, "-m", *arguments],
        cwd=folder / "elsewhere",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture
def bundle_run(tmp_path: Path, config_files: Callable) -> Callable[..., list[str]]:
    """Return a function that gives the arguments of ``monai.bundle run`` for configs of a bundle and a tiny overlay."""

    def arguments(*names: str, bundle: Path = MMFNET, **options: Any) -> list[str]:
        options = {
            "bundle_root": bundle,
            "ckpt_dir": tmp_path / "models",
            "output_dir": tmp_path / "out",
            **options,
        }
        files = config_files(bundle, *names)
        return ["monai.bundle", "run", f"--config_file={files}", *(f"--{k}={v}" for k, v in options.items())]

    return arguments


@pytest.fixture
def weights(busy_weights: Callable) -> Path:
    return busy_weights(MMFNET) / "model.pt"


def assert_ends_in_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr
