"""Test that the list of bundles is complete, and quick because it imports no large library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.bundle_list import BUNDLES, bundle_entries, bundle_table
from common.errors import InputError


def test_list_has_every_bundle() -> None:
    entries = json.loads(bundle_table(as_json=True))
    assert {entry["name"] for entry in entries} == {path.parent.name for path in BUNDLES.glob("*/configs")}
    assert all(entry["name"] in bundle_table(as_json=False) for entry in entries)
    assert all(entry["modalities"] and entry["labels"] and entry["version"] for entry in entries)


def test_list_imports_nothing_heavy() -> None:
    code = "import sys; from common.__main__ import main; main(); print({'torch', 'monai', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()" and done.stdout.startswith("bundle ")


def test_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundles"):
        bundle_entries(tmp_path)


def test_a_pipe_that_closes_early_ends_without_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "common", "list"], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == b""
