"""Test what verify refuses in a package with a list that fits its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from common.packaging import verify_package
from common.packaging.checksums import LIST, write_checksums
from common.record import RECORD_FILE

from ..record.test_run_record import record


@pytest.fixture
def package(folder: Path) -> Path:
    """Write weights, metadata and record of a package."""
    torch.save({"weight": torch.ones(1)}, folder / "models" / "model.pt")
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    record().write(folder / "models")
    return folder


def verified(package: Path) -> str:
    (package / LIST).unlink()
    write_checksums(package)
    return verify_package(package, load=False)


def test_the_record_of_other_weights_is_refused(package: Path) -> None:
    assert verified(package) == "bundle 0.1.0"
    record(weights={"model.pt": ["0" * 64]}).write(package / "models")
    with pytest.raises(InputError, match=r"run\.json: the record of other weights than model\.pt"):
        verified(package)


def test_a_damaged_record_is_refused(package: Path) -> None:
    (package / "models" / RECORD_FILE).write_text("{}")
    with pytest.raises(InputError, match=r"run\.json: key 'bundle' is missing"):
        verified(package)


@pytest.mark.parametrize("metadata", [[], {}, {"version": 1}])
def test_metadata_without_a_version_are_refused(package: Path, metadata: object) -> None:
    (package / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match=r"metadata\.json: expected the metadata of a bundle with its version"):
        verified(package)
