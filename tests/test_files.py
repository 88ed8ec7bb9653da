"""Files are read with a clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import InputError
from common.files import read_json


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: no JSON"):
        read_json(tmp_path / "a.json")
