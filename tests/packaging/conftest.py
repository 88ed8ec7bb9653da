"""Provide a small package, and what packing takes to make one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.packaging.checksums import write_checksums
from common.packaging.contents import Contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the folder of a package of two files and their list."""
    folder = tmp_path / "bundle"
    (folder / "models").mkdir(parents=True)
    (folder / "LICENSE").write_text("free")
    (folder / "models" / "model.pt").write_bytes(b"weights")
    write_checksums(folder)
    return folder


@pytest.fixture
def contents_with(tmp_path: Path) -> Callable[..., Contents]:
    """Return a function that makes the contents of the bundle ``lung`` from its metadata and files."""

    def make(metadata: dict[str, Any], files: dict[str, bytes]) -> Contents:
        return Contents(
            bundle=tmp_path / "lung",
            configs={},
            metadata=metadata,
            files=files,
            weights=tmp_path / "model.pt",
            state={},
            record=None,
            changes={},
            scores=None,
            eval_metrics={},
            phantom={},
        )

    return make
